/**
 * Watches every replica from outside and knows the one true history. It shares no code with the protocol:
 * it counts who holds what on its own, and remembers what was committed for ever.
 */
import { decodeControlMessage, MessageKind } from '../../vmm/core/falcon/control-message.ts';
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import type { FalconLog } from '../../vmm/core/falcon/log.ts';
import type { LogIndex, ReplicaId } from '../../vmm/core/ids.ts';
import type { FaultPlan } from './fault-plan.ts';
import { CLUSTER_ID, HOSTS_MAX, type Machine, type Observer } from './host-world.ts';

interface Committed {
  readonly term: number;
  readonly checksum: number;
}

interface HeldLog {
  readonly log: FalconLog;
  readonly durableIndex: number;
}

class Violation extends Error {}

interface Watched {
  readonly hosts: readonly Machine[];
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
  /** Logs that were lost, and how far each was durable. */
  readonly #dead: HeldLog[][];
  readonly #ended = new Map<ReplicaId, HeldLog>();
  /** Voters by the newest list of members that committed, as read from the records themselves. */
  #voters: readonly number[] | undefined;
  #executing: readonly number[] = [];
  elections = 0;
  injections = 0;

  constructor(cluster: Watched) {
    this.#cluster = cluster;
    this.#dead = Array.from({ length: HOSTS_MAX }, () => []);
    this.#seen = Array.from({ length: HOSTS_MAX }, () => ({ process: 0, commitIndex: 0, term: 0 }));
  }

  get committedCount(): number {
    return this.#history.length;
  }

  observe(host: Machine): void {
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

  #checkLeader(host: Machine, term: number, process: number): void {
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
  #checkLeaderIsComplete(host: Machine, term: number): void {
    const log = host.replica?.log;
    if (log === undefined) return;
    let committed = this.#history.length;
    while (committed > 0 && (this.#committedIn[committed - 1] ?? 0) >= term) committed--;
    if (log.lastIndex < committed) {
      fail(`leader ${host.id} of term ${term} ends at ${log.lastIndex}, ${committed} were committed before`);
    }
    for (let index = log.firstIndex; index <= committed; index++) this.#compare(host, index);
  }

  #compare(host: Machine, index: number): void {
    const log = host.replica?.log;
    const committed = this.#history[index - 1];
    if (log === undefined || committed === undefined || index < log.firstIndex) return;
    const term = log.termAt(index as LogIndex);
    if (term !== committed.term || log.checksumAt(index as LogIndex) !== committed.checksum) {
      fail(`replica ${host.id} holds another record ${index} (term ${term}) than was committed`);
    }
  }

  #checkCommit(host: Machine, from: number, to: number): void {
    const log = host.replica?.log;
    if (log === undefined) return;
    for (let index = from + 1; index <= to; index++) {
      if (index <= this.#history.length) {
        this.#compare(host, index);
        continue;
      }
      if (index < log.firstIndex) fail(`record ${index} was dropped before anyone saw it committed`);
      const at = log.offsetAt(index as LogIndex);
      this.#history.push(nameOf(log.memory.bytes, at));
      this.#committedIn.push(host.replica?.term ?? 0);
      this.#checkSets(log.memory.bytes, at);
      if (index < to) continue;
      // One record stands for all before it: the chain is checked above.
      this.#checkMajorityHolds(to, host);
      this.#checkNobodyCanWinWithout(to, host);
    }
  }

  /** Members change by one voter at a time, and executors are voters: read from the record, not from the core. */
  #checkSets(bytes: Uint8Array, at: number): void {
    const type = bytes[at + 44];
    if (type === 4) {
      const voters = idsIn(bytes, at, true);
      const before = this.#voters ?? this.#cluster.hosts[0]?.firstBase.members.voters ?? [];
      const moved =
        before.filter((id) => !voters.includes(id)).length +
        voters.filter((id) => !before.includes(id)).length;
      if (moved > 1) fail(`the voters changed from ${before.join()} to ${voters.join()} at once`);
      this.#voters = voters;
    } else if (type === 1 || type === 2) this.#executing = idsIn(bytes, at, false);
    else return;
    const outside = this.#executing.filter((id) => this.#voters?.includes(id) === false);
    if (outside.length > 0) fail(`replica ${outside.join()} executes and has no vote`);
  }

  /** No replica that lacks a committed record has a log that a majority of those it would ask would vote for. */
  #checkNobodyCanWinWithout(index: number, by: Machine): void {
    const committed = this.#history[index - 1];
    if (committed === undefined) return;
    for (const candidate of this.#cluster.hosts) {
      if (!mayVote(candidate) || this.#hasNow(candidate, index, committed)) continue;
      const voters = votersOf(candidate);
      const committedVoters = candidate.replica?.membersCommitted.voters ?? [];
      if (!voters.includes(candidate.id) && !committedVoters.includes(candidate.id)) continue;
      let votes = 0;
      for (const id of voters) {
        const voter = this.#cluster.hosts[id];
        if (voter !== undefined && mayVote(voter) && !endsLater(voter, candidate)) votes++;
      }
      if (votes * 2 > voters.length) {
        fail(`record ${index} counts as committed at ${by.id}, but ${candidate.id} could lead without it`);
      }
    }
  }

  #hasNow(host: Machine, index: number, committed: Committed): boolean {
    if (host.replica === undefined) return this.#diskHolds(host, index, committed);
    return logHolds(host.replica.log, index, committed);
  }

  /** By the members that the log of whoever counts it as committed lists. */
  #checkMajorityHolds(index: number, host: Machine): void {
    const committed = this.#history[index - 1];
    if (committed === undefined) return;
    // A backup may learn of the commit first, from a leader that has ended since.
    const { voters } = host.members;
    let holders = 0;
    for (const id of voters) {
      const other = this.#cluster.hosts[id];
      if (other !== undefined && this.#holds(other, index, committed)) holders++;
    }
    if (holders * 2 <= voters.length) {
      fail(`record ${index} counts as committed at ${host.id}, but only ${holders} replicas hold it durably`);
    }
  }

  #holds(host: Machine, index: number, committed: Committed): boolean {
    if (this.#cluster.plan.durability === 'disk') {
      return this.#diskHolds(host, index, committed) || this.#heldOnce(host, index, committed);
    }
    if (host.replica !== undefined && logHolds(host.replica.log, index, committed)) return true;
    return this.#heldOnce(host, index, committed);
  }

  /** What a replica held when its log was lost was held then. */
  #heldOnce(host: Machine, index: number, committed: Committed): boolean {
    const holds = ({ log, durableIndex }: HeldLog): boolean =>
      index <= durableIndex && logHolds(log, index, committed);
    const { replica } = host;
    // A disk that was harmed while its replica ran on: what had been synced was there.
    if (host.disk.harmed && replica !== undefined) {
      if (holds({ log: replica.log, durableIndex: replica.state.durableIndex })) return true;
    }
    return this.#dead[host.id]?.some(holds) === true;
  }

  #diskHolds(host: Machine, index: number, committed: Committed): boolean {
    if (index <= host.disk.base.index) return true;
    const bytes = host.disk.peek(index);
    if (bytes === undefined) return false;
    const found = nameOf(bytes, 0);
    return found.term === committed.term && found.checksum === committed.checksum;
  }

  /** A control message leaves: votes are counted from what is said, not from what anyone remembers. */
  said(host: Machine, bytes: Uint8Array): void {
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
  acked(host: Machine): void {
    const { replica } = host;
    if (replica === undefined || this.#cluster.plan.durability === 'memory') return;
    const { index, checksum } = replica.intake.currentAck();
    if (index < replica.log.firstIndex) return;
    const bytes = host.disk.peek(index);
    if (index <= host.disk.base.index || host.disk.harmed) return;
    if (bytes === undefined || nameOf(bytes, 0).checksum !== checksum) {
      fail(`replica ${host.id} acknowledges record ${index}, which its disk does not hold`);
    }
  }

  /** A process ended, with this log. */
  died(host: Machine, log: FalconLog, durableIndex: number): void {
    const held = { log, durableIndex };
    if (this.#cluster.plan.durability === 'memory') this.#dead[host.id]?.push(held);
    else this.#ended.set(host.id, held);
  }

  /** Its log is gone; what it held was held. */
  lost(host: Machine): void {
    const held = this.#ended.get(host.id);
    if (held !== undefined) this.#dead[host.id]?.push(held);
  }

  /** A guest executed the record at `index`; `digest` is over all it has executed, in order. */
  injected(host: Machine, index: number, digest: number): void {
    this.injections++;
    const known = this.#digests.get(index);
    if (known === undefined) this.#digests.set(index, digest);
    else if (known !== digest) fail(`the guests of ${host.id} and another differ at record ${index}`);
  }

  /** An application record was proposed by `host`. */
  proposed(host: Machine): void {
    const { replica, guest } = host;
    if (replica === undefined) return;
    const named = (set: readonly { replica: number; incarnation: number }[]): boolean =>
      set.some((executor) => executor.replica === host.id && executor.incarnation === guest?.incarnation);
    if (guest?.valid !== true) fail(`replica ${host.id} serves although its guest is not VALID`);
    if (!named(replica.executingSet))
      fail(`replica ${host.id} serves but is not in the newest executing set`);
    if (!named(replica.executingSetCommitted)) fail(`replica ${host.id} serves before its set has committed`);
  }

  acknowledged(index: number, host: Machine): void {
    if (index > this.#history.length)
      fail(`replica ${host.id} acknowledged ${index} before it was committed`);
  }
}

/** Who is down comes back with what its disk holds; who has lost its log has no vote until it is level again. */
function mayVote(host: Machine): boolean {
  if (host.gone || host.logLost || host.disk.harmed) return false;
  if (host.replica === undefined) return host.disk.lastIndex > 0;
  return !host.replica.state.logLost;
}

/** Whom this replica would ask for votes, with the log that it has or would come back with. */
function votersOf(host: Machine): readonly number[] {
  if (host.replica !== undefined) return host.replica.members.voters;
  const record = host.disk.memberRecord;
  return record === undefined ? host.disk.base.members.voters : idsIn(record, 0, true);
}

/** The ids in the payload of a list of members or executors; of members, those with a vote. */
function idsIn(bytes: Uint8Array, at: number, voters: boolean): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  const ids: number[] = [];
  for (let entry = 0; entry < view.getUint32(48, true); entry++) {
    if (!voters || view.getUint32(56 + entry * 8 + 4, true) === 1)
      ids.push(view.getUint32(56 + entry * 8, true));
  }
  return ids;
}

/** What the fixed layout of a record says of it, read without the code under test. */
function nameOf(bytes: Uint8Array, at: number): Committed {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  return { term: view.getUint32(24, true), checksum: view.getInt32(20, true) };
}

/** Whether the log that `one` would give its vote with is further than that of `other`. */
function endsLater(one: Machine, other: Machine): boolean {
  const ownTerm = lastTermOf(one);
  const otherTerm = lastTermOf(other);
  return ownTerm > otherTerm || (ownTerm === otherTerm && lastIndexOf(one) > lastIndexOf(other));
}

function lastIndexOf(host: Machine): number {
  return host.replica === undefined ? host.disk.lastWholeIndex : host.replica.log.lastIndex;
}

function lastTermOf(host: Machine): number {
  if (host.replica !== undefined) return host.replica.log.lastTerm;
  const bytes = host.disk.peek(host.disk.lastWholeIndex);
  return bytes === undefined ? host.disk.base.term : nameOf(bytes, 0).term;
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
