/**
 * The simulated disk of one replica. What was written counts only once it is synced; a crash keeps any
 * prefix of what was not, and may leave a torn record behind it. Synced bytes may rot: recovery tells that from
 * a torn tail, since the disk knows how far it was synced.
 */
import type { OlderRecords } from '../../vmm/core/falcon/older-records.ts';
import type { RecordMemory } from '../../vmm/core/falcon/record.ts';
import type { LogBase } from '../../vmm/core/falcon/settings.ts';
import type { Members } from '../../vmm/core/falcon/membership.ts';
import type { EventQueue } from './event-queue.ts';
import type { Prng } from './prng.ts';

interface Write {
  readonly index: number;
  readonly epoch: number;
  readonly bytes: Uint8Array;
}

export type DiskBase = LogBase & { readonly members: Members };

/** However slow, a sync comes to its end. */
const SYNC_US_MAX = 2_000_000;
/** Where the fixed layout of a record has its type, and which one lists the members. */
const RECORD_TYPE_AT = 44;
const MEMBERSHIP_TYPE = 4;

export interface DiskFaults {
  readonly fsyncUsMax: number;
  readonly fsyncFails: number;
}

export class SimulatedDisk implements OlderRecords {
  /** Synced before it is used, always: term, vote and process number. */
  hard: { term: number; votedFor: number; processNumber: number };
  /** Where the log on this disk begins. */
  base: DiskBase;
  slowdown = 1;
  /** The log was harmed where it had been synced: it is of no use any more. */
  harmed = false;
  /** By index; holes before `firstIndex`. */
  #records: (Uint8Array | undefined)[] = [];
  #first = 1;
  #last = 0;
  /** Indexes of the records that list members, ascending. */
  #memberRecords: number[] = [];
  #pending: Write[] = [];
  #torn = false;
  #syncing = 0;
  #life = 0;
  readonly #queue: EventQueue;
  readonly #prng: Prng;

  constructor(queue: EventQueue, prng: Prng, base: DiskBase) {
    this.#queue = queue;
    this.#prng = prng;
    this.hard = { term: 0, votedFor: 255, processNumber: 0 };
    this.base = base;
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
    const { index, bytes } = write;
    if (index < this.#first) return;
    while ((this.#memberRecords.at(-1) ?? 0) >= index) this.#memberRecords.pop();
    this.#records.length = index;
    this.#records[index] = bytes;
    this.#last = index;
    if (!this.#torn && bytes[RECORD_TYPE_AT] === MEMBERSHIP_TYPE) this.#memberRecords.push(index);
  }

  /** Power goes: a prefix of what was not synced is there, and the write after it may be half there. */
  crash(tears: boolean): void {
    this.#life++;
    this.#syncing = 0;
    const kept = this.#prng.between(0, this.#pending.length);
    for (const write of this.#pending.slice(0, kept)) this.#apply(write);
    const next = this.#pending[kept];
    this.#torn = false;
    if (tears && next !== undefined) {
      const bytes = next.bytes.slice();
      bytes.fill(0xa5, this.#prng.between(0, bytes.length - 1));
      this.#torn = true;
      this.#apply({ ...next, bytes });
    }
    this.#pending = [];
  }

  /** The torn tail is cut off, as recovery does. */
  cutTo(index: number): void {
    this.#records.length = Math.max(index + 1, 0);
    this.#last = index;
    this.#torn = false;
    while ((this.#memberRecords.at(-1) ?? 0) > index) this.#memberRecords.pop();
  }

  /** Whether the last record may be half there: it was being written when the power went. */
  get tailMayBeTorn(): boolean {
    return this.#torn;
  }

  /** One bit of a synced record turns over. */
  rot(): void {
    if (this.#last < this.#first) return;
    const index = this.#prng.between(this.#first, this.#last);
    const bytes = this.#records[index]?.slice();
    if (bytes === undefined) return;
    const at = this.#prng.between(0, bytes.length - 1);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#prng.between(0, 7));
    this.#records[index] = bytes;
    this.harmed = true;
  }

  /** Nothing is left of the log; what was being written goes nowhere. */
  beginAt(base: DiskBase): void {
    this.#life++;
    this.#syncing = 0;
    this.#pending = [];
    this.#records = [];
    this.#memberRecords = [];
    this.#torn = false;
    this.harmed = false;
    this.base = base;
    this.#first = base.index + 1;
    this.#last = base.index;
  }

  /** A checkpoint covers what lies up to `base`: it goes. */
  dropThrough(base: DiskBase): void {
    if (base.index < this.#first || base.index >= this.#last) return;
    for (let index = this.#first; index <= base.index; index++) this.#records[index] = undefined;
    this.#memberRecords = this.#memberRecords.filter((index) => index > base.index);
    this.base = base;
    this.#first = base.index + 1;
  }

  get lastIndex(): number {
    return this.#last;
  }

  /** The last record that recovery will find whole. */
  get lastWholeIndex(): number {
    return this.#torn ? this.#last - 1 : this.#last;
  }

  /** What lies there, for recovery and for the checker. */
  peek(index: number): Uint8Array | undefined {
    return index >= this.#first && index <= this.#last ? this.#records[index] : undefined;
  }

  /** The newest record that lists members, if the log holds one. */
  get memberRecord(): Uint8Array | undefined {
    return this.peek(this.#memberRecords.at(-1) ?? -1);
  }

  /** `OlderRecords` of the core. */
  get firstIndex(): number {
    return this.#last < this.#first ? Infinity : this.#first;
  }

  read(index: number, target: RecordMemory, at: number): number {
    const bytes = this.peek(index);
    if (bytes === undefined) return 0;
    target.bytes.set(bytes, at);
    return bytes.length;
  }
}
