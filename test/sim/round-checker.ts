/**
 * Watches guests, sets and frames from outside, and knows what clients have seen. It asks the protocol nothing
 * that it could find out by itself.
 */
import { hasBit } from '../../merkle/bitmap.ts';
import type { UnreconciledSet } from '../../vmm/core/rounds/unreconciled-set.ts';
import { sameRound } from '../../vmm/core/rounds/unreconciled-set.ts';
import { happened, type Frame, type Moment, type RoundGuest } from './round-guest.ts';
import type { RoundObserver, SimHost } from './round-world.ts';

class RoundViolation extends Error {}

export class RoundChecker implements RoundObserver {
  readonly #hosts: readonly SimHost[];
  /** The newest frame that a client may have seen. All others lie in its past: that was checked as it left. */
  #newest: Frame | undefined;
  /** What had happened to the guest that it left. */
  #newestPast: Moment | undefined;
  /** Frames count only where rounds are not made to diverge on purpose. */
  readonly #framesCount: boolean;
  readonly #isLockstep: boolean;
  equalities = 0;
  mismatches = 0;
  differences = 0;
  releases = 0;
  rounds = 0;

  constructor(hosts: readonly SimHost[], framesCount: boolean, isLockstep: boolean) {
    this.#hosts = hosts;
    this.#framesCount = framesCount;
    this.#isLockstep = isLockstep;
  }

  observe(host: SimHost): void {
    for (const other of this.#hosts) if (other !== host) this.#checkSets(host, other);
  }

  /** Every page that differs is in the unreconciled set, where both sides believe that they know it. */
  #checkSets(host: SimHost, other: SimHost): void {
    const one = host.exchange?.set;
    const two = other.exchange?.set;
    const { guest } = host;
    const theirs = other.guest;
    if (one === undefined || two === undefined || guest === undefined || theirs === undefined) return;
    if (!one.intact || !two.intact || !sameRound(one.last, two.last)) return;
    for (const page of guest.differingPages(theirs)) {
      if (covers(one, guest, page) || covers(two, theirs, page)) continue;
      fail(`page ${page} differs between ${host.id} and ${other.id}, and is in no set`);
    }
  }

  /** `host` was made equal to its leader, which still stands if it is still there. */
  adopted(host: SimHost, index: number): void {
    this.equalities++;
    const term = host.replica?.term;
    const leader = this.#hosts.find(
      (other) => other !== host && other.replica?.role === 'leader' && other.replica.term === term,
    );
    if (leader?.exchange?.leader.underWay !== true || leader.runner?.appliedIndex !== index) return;
    const { guest } = host;
    if (guest === undefined || leader.guest === undefined) return;
    const [page] = guest.differingPages(leader.guest);
    if (page !== undefined)
      fail(`${host.id} applied record ${index}, but page ${page} is not that of ${leader.id}`);
    if (guest.devices.some((byte, at) => byte !== leader.guest?.devices[at]))
      fail(`${host.id} applied record ${index}, but its devices are not those of ${leader.id}`);
  }

  proposed(host: SimHost): void {
    this.rounds++;
    this.#mustServe(host, 'proposes');
  }

  injected(host: SimHost, index: number): void {
    const { replica } = host;
    if (replica === undefined) return;
    if (index > replica.commitIndex) fail(`${host.id} executes record ${index}, which is not committed`);
    const before = host.guest?.past?.index ?? 0;
    if (before >= index) fail(`${host.id} executes record ${index} behind record ${before}`);
    if (replica.role !== 'leader') return;
    this.#mustServe(host, 'executes as leader');
    // In lockstep what clients have seen may be what is only now executed here. And a leader that does not know of its
    // successor yet may execute what is committed: that it releases nothing of it is looked at where it would.
    if (!this.#isLockstep && !this.#hasSuccessor(host)) this.#mustKnowAllFrames(host);
  }

  #hasSuccessor({ replica }: SimHost): boolean {
    return this.#hosts.some((other) => (other.replica?.term ?? 0) > (replica?.term ?? 0));
  }

  serves(host: SimHost): void {
    this.#mustServe(host, 'serves');
    this.#mustKnowAllFrames(host);
  }

  #mustServe(host: SimHost, does: string): void {
    const { replica, incarnation, exchange } = host;
    if (exchange?.set.valid !== true) fail(`${host.id} ${does} although its guest is not VALID`);
    for (const set of [replica?.executingSet, replica?.executingSetCommitted]) {
      if (set?.some((one) => one.replica === host.id && one.incarnation === incarnation) !== true)
        fail(`${host.id} ${does} but is not in the executing set`);
    }
  }

  /** What a client has seen happened in the past of whoever serves it. */
  #mustKnowAllFrames(host: SimHost): void {
    const frame = this.#newest;
    if (!this.#framesCount || frame === undefined || host.guest?.happened(frame) === true) return;
    fail(
      `${host.id} serves, but a client has seen a frame of record ${frame.index} that never happened there`,
    );
  }

  released(host: SimHost, frame: Frame): void {
    this.releases++;
    this.#mustServe(host, 'releases');
    if (!this.#framesCount) return;
    this.#mustFitWhatWasSeen(host, frame);
    if (host.guest?.happened(frame) !== true) fail(`${host.id} releases what never happened there`);
    // In lockstep a successor need not have got there yet: what it executes will be the same.
    if (this.#isLockstep) return;
    for (const other of this.#hosts) {
      if (other === host || !this.#isEligibleSuccessor(other)) continue;
      if (other.guest?.happened(frame) !== true)
        fail(`${host.id} releases a frame of record ${frame.index}, which ${other.id} has not applied`);
    }
  }

  /**
   * A leader that was frozen may still send what it was allowed to send: that lies in the past of what clients have
   * seen since.
   */
  #mustFitWhatWasSeen(host: SimHost, frame: Frame): void {
    const newest = this.#newest;
    if (newest !== undefined && frame.index <= newest.index) {
      if (!happened(this.#newestPast, frame))
        fail(`${host.id} releases a frame of record ${frame.index} that contradicts what clients have seen`);
      return;
    }
    this.#mustKnowAllFrames(host);
    this.#newest = frame;
    this.#newestPast = host.guest?.past;
  }

  /** It could win a term with what it holds now, and would serve. */
  #isEligibleSuccessor(host: SimHost): boolean {
    const { replica, exchange, incarnation } = host;
    if (replica === undefined || exchange?.set.valid !== true) return false;
    const named = replica.executingSet.some(
      (one) => one.replica === host.id && one.incarnation === incarnation,
    );
    if (!named) return false;
    const end = endOf(host);
    const voters = this.#hosts.filter((other) => !comesAfter(endOf(other), end));
    return voters.length * 2 > this.#hosts.length;
  }

  exchanged(host: SimHost, leads: boolean, type: string): void {
    if (!leads) return;
    if (type === 'different') this.differences++;
    if (type !== 'mismatch' && type !== 'refused') return;
    this.mismatches++;
    fail(`an exchange of ${host.id} ended with "${type}" although memory keeps what is written`);
  }
}

function covers(set: UnreconciledSet, guest: RoundGuest, page: number): boolean {
  const words = new Uint32Array(guest.bitmapWords);
  set.writeInto(words);
  return hasBit(words, page) || hasBit(guest.dirty, page);
}

/** How the log ends that it would ask or give votes with. */
function endOf(host: SimHost): { readonly term: number; readonly index: number } {
  if (host.replica !== undefined)
    return { term: host.replica.log.lastTerm, index: host.replica.log.lastIndex };
  const last = host.disk.records.at(-1);
  const term = last === undefined ? 0 : new DataView(last.buffer, last.byteOffset).getUint32(24, true);
  return { term, index: host.disk.records.length };
}

function comesAfter(
  one: { readonly term: number; readonly index: number },
  other: { readonly term: number; readonly index: number },
): boolean {
  return one.term > other.term || (one.term === other.term && one.index > other.index);
}

export function fail(text: string): never {
  throw new RoundViolation(text);
}
