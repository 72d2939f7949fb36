/**
 * Watches every replica from outside and knows the one true history. It shares no code with the protocol:
 * it counts who holds what on its own, and remembers what was committed for ever.
 */
import { decodeControlMessage, MessageKind } from '../../vmm/core/falcon/control-message.ts';
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import type { FalconLog } from '../../vmm/core/falcon/log.ts';
import type { LogIndex, ReplicaId } from '../../vmm/core/ids.ts';
import type { FaultPlan } from './fault-plan.ts';
import { CLUSTER_ID, type Host, type Observer } from './host.ts';

interface Committed {
  readonly term: number;
  readonly checksum: number;
}

class Violation extends Error {}

interface Watched {
  readonly hosts: readonly Host[];
  readonly plan: FaultPlan;
}

export class SafetyChecker implements Observer {
  readonly #cluster: Watched;
  /** history[i - 1] is the record committed at index i. */
  readonly #history: Committed[] = [];
  /** In which term that was seen first, for each record of the history. */
  readonly #committedIn: number[] = [];
  readonly #leaders = new Map<number, { readonly id: ReplicaId; readonly process: number }>();
  readonly #votes = new Map<string, ReplicaId>();
  readonly #digests = new Map<number, number>();
  readonly #seen: { process: number; commitIndex: number; term: number }[];
  readonly #dead: FalconLog[][];
  elections = 0;
  injections = 0;

  constructor(cluster: Watched, replicas: number) {
    this.#cluster = cluster;
    this.#dead = Array.from({ length: replicas }, () => []);
    this.#seen = Array.from({ length: replicas }, () => ({ process: 0, commitIndex: 0, term: 0 }));
  }

  get committedCount(): number {
    return this.#history.length;
  }

  observe(host: Host): void {
    const { replica } = host;
    const seen = this.#seen[host.id];
    if (replica === undefined || seen === undefined) return;
    const process = host.disk.hard.processNumber;
    if (process !== seen.process) {
      seen.process = process;
      seen.commitIndex = 0;
      if (replica.term < seen.term) fail(`replica ${host.id} forgot term ${seen.term}`);
    }
    if (replica.term < seen.term) fail(`the term of replica ${host.id} fell from ${seen.term}`);
    seen.term = replica.term;
    if (replica.role === 'leader') this.#checkLeader(host, replica.term, process);
    if (replica.commitIndex < seen.commitIndex) fail(`the commit index of replica ${host.id} fell`);
    if (replica.commitIndex > seen.commitIndex)
      this.#checkCommit(host, seen.commitIndex, replica.commitIndex);
    seen.commitIndex = replica.commitIndex;
  }

  #checkLeader(host: Host, term: number, process: number): void {
    const known = this.#leaders.get(term);
    if (known === undefined) {
      this.#leaders.set(term, { id: host.id, process });
      this.elections++;
      this.#checkLeaderIsComplete(host, term);
    } else if (known.id !== host.id || known.process !== process) {
      fail(`term ${term} has two leaders: ${known.id} and ${host.id}`);
    }
  }

  /** A vote counted late may make a leader of a term that is over: it has what was committed before that term. */
  #checkLeaderIsComplete(host: Host, term: number): void {
    const log = host.replica?.log;
    if (log === undefined) return;
    let committed = this.#history.length;
    while (committed > 0 && (this.#committedIn[committed - 1] ?? 0) >= term) committed--;
    if (log.lastIndex < committed) {
      fail(`leader ${host.id} of term ${term} ends at ${log.lastIndex}, ${committed} were committed before`);
    }
    for (let index = log.firstIndex; index <= committed; index++) this.#compare(host, index);
  }

  #compare(host: Host, index: number): void {
    const log = host.replica?.log;
    const committed = this.#history[index - 1];
    if (log === undefined || committed === undefined || index < log.firstIndex) return;
    const term = log.termAt(index as LogIndex);
    if (term !== committed.term || log.checksumAt(index as LogIndex) !== committed.checksum) {
      fail(`replica ${host.id} holds another record ${index} (term ${term}) than was committed`);
    }
  }

  #checkCommit(host: Host, from: number, to: number): void {
    const log = host.replica?.log;
    if (log === undefined) return;
    for (let index = from + 1; index <= to; index++) {
      if (index <= this.#history.length) {
        this.#compare(host, index);
        continue;
      }
      if (index < log.firstIndex) fail(`record ${index} was dropped before anyone saw it committed`);
      const record = { term: log.termAt(index as LogIndex), checksum: log.checksumAt(index as LogIndex) };
      this.#history.push(record);
      this.#committedIn.push(host.replica?.term ?? 0);
    }
    // One record stands for all before it: the chain is checked above.
    this.#checkMajorityHolds(to, host);
    if (to === this.#history.length) this.#checkNobodyCanWinWithout(to, host);
  }

  /** No replica that lacks a committed record has a log that a majority would vote for. */
  #checkNobodyCanWinWithout(index: number, by: Host): void {
    const committed = this.#history[index - 1];
    if (committed === undefined) return;
    const ends = this.#cluster.hosts.filter(mayVote).map((host) => ({ host, end: endOf(host) }));
    for (const { host, end } of ends) {
      if (
        host.replica === undefined
          ? this.#diskHolds(host, index, committed)
          : logHolds(host.replica.log, index, committed)
      )
        continue;
      const voters = ends.filter((other) => !comesAfter(other.end, end)).length;
      if (voters * 2 > this.#cluster.hosts.length) {
        fail(`record ${index} counts as committed at ${by.id}, but ${host.id} could lead without it`);
      }
    }
  }

  #checkMajorityHolds(index: number, host: Host): void {
    const committed = this.#history[index - 1];
    if (committed === undefined) return;
    let holders = 0;
    for (const other of this.#cluster.hosts) if (this.#holds(other, index, committed)) holders++;
    if (holders * 2 <= this.#cluster.hosts.length) {
      fail(`record ${index} counts as committed at ${host.id}, but only ${holders} replicas hold it durably`);
    }
  }

  #holds(host: Host, index: number, committed: Committed): boolean {
    if (this.#cluster.plan.durability === 'disk') return this.#diskHolds(host, index, committed);
    if (host.replica !== undefined && logHolds(host.replica.log, index, committed)) return true;
    return this.#dead[host.id]?.some((log) => logHolds(log, index, committed)) === true;
  }

  #diskHolds(host: Host, index: number, committed: Committed): boolean {
    const bytes = host.disk.peek(index);
    if (bytes === undefined) return false;
    const found = nameOf(bytes);
    return found.term === committed.term && found.checksum === committed.checksum;
  }

  /** A control message leaves: votes are counted from what is said, not from what anyone remembers. */
  said(host: Host, bytes: Uint8Array): void {
    const message = decodeControlMessage(bytes, CLUSTER_ID, crc32cByTables);
    if (typeof message === 'string') fail(`replica ${host.id} sends nonsense: ${message}`);
    const { kind, electionTerm, granted, to } = message;
    if (kind === MessageKind.voteReply && granted) this.#voted(host.id, electionTerm, to);
    if (kind === MessageKind.voteRequest) this.#voted(host.id, electionTerm, host.id);
  }

  #voted(voter: ReplicaId, term: number, candidate: ReplicaId): void {
    const ballot = `${term}/${voter}`;
    const known = this.#votes.get(ballot);
    if (known !== undefined && known !== candidate) {
      fail(`replica ${voter} voted for ${known} and for ${candidate} in term ${term}`);
    }
    this.#votes.set(ballot, candidate);
  }

  /** An ack leaves: what it says must be so. */
  acked(host: Host): void {
    const { replica } = host;
    if (replica === undefined || this.#cluster.plan.durability === 'memory') return;
    const { index, checksum } = replica.intake.currentAck();
    if (index < replica.log.firstIndex) return;
    const bytes = host.disk.peek(index);
    if (bytes === undefined || nameOf(bytes).checksum !== checksum) {
      fail(`replica ${host.id} acknowledges record ${index}, which its disk does not hold`);
    }
  }

  /** Memory durability: what a replica held when it died was held then. */
  died(host: Host, log: FalconLog): void {
    this.#dead[host.id]?.push(log);
  }

  /** A guest executed the record at `index`; `digest` is over all it has executed, in order. */
  injected(host: Host, index: number, digest: number): void {
    this.injections++;
    const known = this.#digests.get(index);
    if (known === undefined) this.#digests.set(index, digest);
    else if (known !== digest) fail(`the guests of ${host.id} and another differ at record ${index}`);
  }

  /** An application record was proposed by `host`. */
  proposed(host: Host): void {
    const { replica, guest } = host;
    if (replica === undefined) return;
    const named = (set: readonly { replica: number; incarnation: number }[]): boolean =>
      set.some((executor) => executor.replica === host.id && executor.incarnation === guest?.incarnation);
    if (guest?.valid !== true) fail(`replica ${host.id} serves although its guest is not VALID`);
    if (!named(replica.executingSet))
      fail(`replica ${host.id} serves but is not in the newest executing set`);
    if (!named(replica.executingSetCommitted)) fail(`replica ${host.id} serves before its set has committed`);
  }

  acknowledged(index: number, host: Host): void {
    if (index > this.#history.length)
      fail(`replica ${host.id} acknowledged ${index} before it was committed`);
  }
}

/** Memory durability: who is down comes back without its log, and has no vote until it is level again. */
function mayVote(host: Host): boolean {
  if (host.replica === undefined) return host.disk.lastIndex > 0;
  return !host.replica.state.logLost;
}

/** What the fixed layout of a record says of it, read without the code under test. */
function nameOf(bytes: Uint8Array): Committed {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { term: view.getUint32(24, true), checksum: view.getInt32(20, true) };
}

interface LogEnd {
  readonly term: number;
  readonly index: number;
}

/** How the log ends that a replica would ask or give votes with. */
function endOf(host: Host): LogEnd {
  if (host.replica !== undefined)
    return { term: host.replica.log.lastTerm, index: host.replica.log.lastIndex };
  const bytes = host.disk.peek(host.disk.lastIndex);
  return { term: bytes === undefined ? 0 : nameOf(bytes).term, index: host.disk.lastIndex };
}

function comesAfter(one: LogEnd, other: LogEnd): boolean {
  return one.term > other.term || (one.term === other.term && one.index > other.index);
}

function logHolds(log: FalconLog, index: number, committed: Committed): boolean {
  if (index > log.lastIndex) return false;
  // What was dropped was committed before, and that was checked then.
  if (index < log.firstIndex) return true;
  const at = index as LogIndex;
  return log.termAt(at) === committed.term && log.checksumAt(at) === committed.checksum;
}

export function fail(text: string): never {
  throw new Violation(text);
}
