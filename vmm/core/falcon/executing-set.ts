/**
 * Who may execute, as the log says it. Eligibility follows the newest set present in the log, committed or
 * not; whoever leads obeys the stricter of that one and the newest committed one.
 */
import type { LogIndex, ReplicaId } from '../ids.ts';
import { invariant } from '../invariant.ts';

/** One QEMU process of one replica; a new process is another executor, and not VALID. */
interface Executor {
  readonly replica: ReplicaId;
  /** Unsigned 32 bits, never used twice by one replica. */
  readonly incarnation: number;
}

export type ExecutingSet = readonly Executor[];

/** Named maximum: a set of more executors is refused. */
export const EXECUTORS_MAX = 16;
const EXECUTOR_BYTES = 8;

export function executingSetBytes(set: ExecutingSet): number {
  return set.length * EXECUTOR_BYTES;
}

export function encodeExecutingSet(set: ExecutingSet, view: DataView, at: number): void {
  invariant(set.length <= EXECUTORS_MAX, 'an executing set is small');
  set.forEach((executor, position) => {
    view.setUint32(at + position * EXECUTOR_BYTES, executor.replica, true);
    view.setUint32(at + position * EXECUTOR_BYTES + 4, executor.incarnation, true);
  });
}

export function decodeExecutingSet(view: DataView, at: number, count: number): ExecutingSet {
  return Array.from({ length: count }, (_, position) => ({
    replica: view.getUint32(at + position * EXECUTOR_BYTES, true) as ReplicaId,
    incarnation: view.getUint32(at + position * EXECUTOR_BYTES + 4, true),
  }));
}

export function setHolds(set: ExecutingSet, replica: ReplicaId, incarnation: number): boolean {
  // Asked for every record: no closure, no garbage.
  for (const executor of set) {
    if (executor.replica === replica && executor.incarnation === incarnation) return true;
  }
  return false;
}

const NOBODY: ExecutingSet = [];

interface Entry {
  readonly index: LogIndex;
  readonly set: ExecutingSet;
}

/** Every set that the log holds, from the newest committed one on. */
export class ExecutingHistory {
  /** Invariant: never empty, ascending by index; the first is the newest committed one or older. */
  #entries: Entry[];

  constructor(base: ExecutingSet) {
    this.#entries = [{ index: 0 as LogIndex, set: base }];
  }

  get newest(): ExecutingSet {
    return this.#entries.at(-1)?.set ?? NOBODY;
  }

  get newestIndex(): LogIndex {
    return this.#entries.at(-1)?.index ?? (0 as LogIndex);
  }

  committed(commitIndex: LogIndex): ExecutingSet {
    let newest = NOBODY;
    for (const entry of this.#entries) if (entry.index <= commitIndex) newest = entry.set;
    return newest;
  }

  append(index: LogIndex, set: ExecutingSet): void {
    invariant(index > this.newestIndex, 'executing sets are appended in order');
    this.#entries.push({ index, set });
  }

  /** Called for every record that is truncated or committed, so it does nothing when there is nothing to do. */
  truncateTo(index: LogIndex): void {
    while (this.#entries.length > 1 && this.newestIndex > index) this.#entries.pop();
  }

  /** True when another set than before is the newest committed one. */
  forgetBefore(commitIndex: LogIndex): boolean {
    const before = this.#entries[0];
    while ((this.#entries[1]?.index ?? Infinity) <= commitIndex) this.#entries.shift();
    return this.#entries[0] !== before;
  }

  /** As after loading a checkpoint that was taken at `index`. */
  resetTo(index: LogIndex, set: ExecutingSet): void {
    this.#entries = [{ index, set }];
  }
}
