/**
 * The simulated disk of one replica. What was written counts only once it is synced; a crash keeps any
 * prefix of what was not, and may leave half a record behind it.
 */
import type { OlderRecords } from '../../vmm/core/falcon/older-records.ts';
import type { RecordMemory } from '../../vmm/core/falcon/record.ts';
import type { EventQueue } from './event-queue.ts';
import type { Prng } from './prng.ts';

interface Write {
  readonly index: number;
  readonly epoch: number;
  readonly bytes: Uint8Array;
}

/** However slow, a sync comes to its end. */
const SYNC_US_MAX = 2_000_000;

export interface DiskFaults {
  readonly fsyncUsMax: number;
  readonly fsyncFails: number;
}

export class SimulatedDisk implements OlderRecords {
  /** Synced before it is used, always: term, vote and process number. */
  hard: { term: number; votedFor: number; processNumber: number };
  slowdown = 1;
  #records = new Map<number, Uint8Array>();
  #last = 0;
  #pending: Write[] = [];
  #syncing = 0;
  #life = 0;
  readonly #queue: EventQueue;
  readonly #prng: Prng;

  constructor(
    queue: EventQueue,
    prng: Prng,
    hard: { term: number; votedFor: number; processNumber: number },
  ) {
    this.#queue = queue;
    this.#prng = prng;
    this.hard = hard;
  }

  /** Group commit: everything handed over while a sync runs goes into the next one. */
  write(
    index: number,
    epoch: number,
    bytes: Uint8Array,
    faults: () => DiskFaults,
    done: (index: number, epoch: number) => void,
    failed: () => void,
  ): void {
    this.#pending.push({ index, epoch, bytes });
    if (this.#syncing === 0) this.#sync(faults, done, failed);
  }

  #sync(faults: () => DiskFaults, done: (index: number, epoch: number) => void, failed: () => void): void {
    this.#syncing = this.#pending.length;
    const life = this.#life;
    const tookUs = Math.min(this.#prng.between(20, faults().fsyncUsMax) * this.slowdown, SYNC_US_MAX);
    this.#queue.after(tookUs, () => {
      if (life !== this.#life) return;
      if (this.#prng.chance(faults().fsyncFails)) {
        failed();
        return;
      }
      const synced = this.#pending.splice(0, this.#syncing);
      this.#syncing = 0;
      for (const write of synced) this.#apply(write);
      const last = synced.at(-1);
      if (this.#pending.length > 0) this.#sync(faults, done, failed);
      if (last !== undefined) done(last.index, last.epoch);
    });
  }

  #apply(write: Write): void {
    for (let index = write.index; index <= this.#last; index++) this.#records.delete(index);
    this.#records.set(write.index, write.bytes);
    this.#last = write.index;
  }

  crash(): void {
    this.#life++;
    this.#syncing = 0;
    const kept = this.#prng.between(0, this.#pending.length);
    for (const write of this.#pending.slice(0, kept)) this.#apply(write);
    this.#pending = [];
  }

  /** What recovery finds, in order of the log. */
  records(): readonly Uint8Array[] {
    const found: Uint8Array[] = [];
    for (let index = 1; index <= this.#last; index++) {
      const bytes = this.#records.get(index);
      if (bytes !== undefined) found.push(bytes);
    }
    return found;
  }

  get lastIndex(): number {
    return this.#last;
  }

  /** What lies there, for the checker. */
  peek(index: number): Uint8Array | undefined {
    return this.#records.get(index);
  }

  /** `OlderRecords` of the core. */
  get firstIndex(): number {
    return this.#last === 0 ? Infinity : 1;
  }

  read(index: number, target: RecordMemory, at: number): number {
    const bytes = this.#records.get(index);
    if (bytes === undefined) return 0;
    target.bytes.set(bytes, at);
    return bytes.length;
  }
}
