/**
 * The leader's view of who executes beside it: who has to have applied a round before its output leaves, who lags,
 * who waits to come in. Invariant: from append to commit of a set, whoever is in the old or the new one counts.
 */
import type { ExecutingSet } from '../falcon/executing-set.ts';
import type { LogIndex, ReplicaId } from '../ids.ts';
import type { RoundParts } from './round-parts.ts';

export class Partners {
  readonly #parts: RoundParts;
  readonly #executed = new Map<ReplicaId, { index: number; sinceUs: number }>();
  /** Guests that wait to be made equal: their incarnation. */
  readonly #wanting = new Map<ReplicaId, number>();
  readonly #gone = new Set<ReplicaId>();
  /** Did not stay equal, or said what cannot be: may come back only through the whole. */
  readonly #faulty = new Set<ReplicaId>();

  constructor(parts: RoundParts) {
    this.#parts = parts;
  }

  /** The replica that executes beside this one, by any set that may be in force. */
  get partner(): ReplicaId | undefined {
    const { falcon, self } = this.#parts;
    for (const { replica } of falcon.executingSet) if (replica !== self) return replica;
    for (const { replica } of falcon.executingSetCommitted) if (replica !== self) return replica;
    return undefined;
  }

  executed(replica: ReplicaId, index: number, nowUs: number): void {
    this.#gone.delete(replica);
    if (index > (this.#executed.get(replica)?.index ?? -1))
      this.#executed.set(replica, { index, sinceUs: nowUs });
  }

  /** What an earlier leadership knew counts no more. */
  forget(nowUs: number): void {
    this.#executed.clear();
    this.#wanting.clear();
    this.#faulty.clear();
    const { partner } = this;
    if (partner !== undefined) this.executed(partner, 0, nowUs);
  }

  wants(replica: ReplicaId, incarnation: number): void {
    this.#gone.delete(replica);
    this.#wanting.set(replica, incarnation);
  }

  /** This guest has ended. */
  lost(replica: ReplicaId, incarnation: number): void {
    if (this.#wanting.get(replica) === incarnation) this.#wanting.delete(replica);
    if (this.#incarnationOf(replica) === incarnation) this.fault(replica);
  }

  /** A replica has one guest at a time: any other one of it has ended. */
  replaced(replica: ReplicaId, incarnation: number): void {
    const named = this.#incarnationOf(replica);
    if (named !== undefined && named !== incarnation) this.fault(replica);
  }

  /** Of its guest that the newest set names, if any. */
  #incarnationOf(replica: ReplicaId): number | undefined {
    return this.#parts.falcon.executingSet.find((one) => one.replica === replica)?.incarnation;
  }

  gone(replica: ReplicaId): void {
    this.#gone.add(replica);
    this.#wanting.delete(replica);
    this.#executed.delete(replica);
  }

  isGone(replica: ReplicaId): boolean {
    return this.#gone.has(replica);
  }

  fault(replica: ReplicaId): void {
    this.#faulty.add(replica);
  }

  /** Rounds that this backup has not told of having executed. */
  lag(replica: ReplicaId): number {
    return this.#parts.guest.appliedIndex - (this.#executed.get(replica)?.index ?? 0);
  }

  /** It stands still behind this leader. */
  lags(replica: ReplicaId, nowUs: number): boolean {
    const { guest, times } = this.#parts;
    const progress = this.#executed.get(replica);
    if (progress === undefined) return false;
    if (progress.index >= guest.appliedIndex) progress.sinceUs = nowUs;
    return nowUs - progress.sinceUs > times.stallUs;
  }

  mustGo(replica: ReplicaId): boolean {
    return this.#gone.has(replica) || this.#faulty.has(replica);
  }

  /** Guests wait to come in. */
  get someWait(): boolean {
    return this.#wanting.size > 0;
  }

  /** The next guest that waits to come in, with its incarnation. */
  takeWanting(): { readonly replica: ReplicaId; readonly incarnation: number } | undefined {
    for (const [replica, incarnation] of this.#wanting) {
      this.#wanting.delete(replica);
      return { replica, incarnation };
    }
    return undefined;
  }

  /** Whether the sets in force name exactly this guest. */
  names(replica: ReplicaId, incarnation: number): boolean {
    const { falcon } = this.#parts;
    const holds = (set: ExecutingSet): boolean =>
      set.some((one) => one.replica === replica && one.incarnation === incarnation);
    return holds(falcon.executingSet) && holds(falcon.executingSetCommitted);
  }

  /** Proposes that it executes no longer; 0: not now. */
  remove(replica: ReplicaId): LogIndex {
    const { falcon } = this.#parts;
    const rest = falcon.executingSet.filter((member) => member.replica !== replica);
    if (rest.length === falcon.executingSet.length) return 0 as LogIndex;
    return this.#propose(rest);
  }

  /** Proposes that it executes; it must be equal to this guest as it stands. */
  add(replica: ReplicaId, incarnation: number, nowUs: number): LogIndex {
    const { falcon, guest } = this.#parts;
    this.#faulty.delete(replica);
    this.#wanting.delete(replica);
    this.#executed.set(replica, { index: guest.appliedIndex, sinceUs: nowUs });
    if (this.names(replica, incarnation)) return guest.appliedIndex;
    const rest = falcon.executingSet.filter((member) => member.replica !== replica);
    return this.#propose([...rest, { replica, incarnation }]);
  }

  #propose(set: ExecutingSet): LogIndex {
    const result = this.#parts.falcon.proposeExecutingSet(set);
    return typeof result === 'number' ? result : (0 as LogIndex);
  }
}
