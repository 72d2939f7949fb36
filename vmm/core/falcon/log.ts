/**
 * The log in memory: preallocated bytes and one row of typed arrays per record, nothing allocated later.
 *
 * A record lies in one piece in a circular storage. What is appended stays until it is truncated (suffix,
 * never at or below the commit index: the caller's invariant, checked there) or dropped (prefix). The
 * (origin term, checksum) of the last dropped record stay known, so that the chain is never broken.
 */
import type { LogIndex, Term } from '../ids.ts';
import { invariant } from '../invariant.ts';
import { recordMemory, type RecordMemory } from './record.ts';

export interface LogLimits {
  /** Bytes of records kept in memory. */
  readonly storageBytes: number;
  /** Records kept in memory. */
  readonly recordsMax: number;
  /** Bytes of one record, header included. */
  readonly recordBytesMax: number;
}

/** Up to this, copying word by word beats a call that copies a block. */
const WORD_COPY_BYTES_MAX = 128;

/** Copies `length` bytes from `sourceAt` of one array to `targetAt` of another. */
export type CopyBytes = (
  target: Uint8Array,
  targetAt: number,
  source: Uint8Array,
  sourceAt: number,
  length: number,
) => void;

/** Needs no addon, but makes a view for each copy. */
const copyBytesByView: CopyBytes = (target, targetAt, source, sourceAt, length) =>
  target.set(source.subarray(sourceAt, sourceAt + length), targetAt);

export class FalconLog {
  readonly limits: LogLimits;
  readonly memory: RecordMemory;
  /** Invariant: record i is present exactly when firstIndex <= i <= lastIndex; lastIndex >= firstIndex - 1. */
  firstIndex = 1 as LogIndex;
  lastIndex = 0 as LogIndex;

  readonly #copyBytes: CopyBytes;
  readonly #words: Int32Array;
  #foreign: Int32Array = new Int32Array(0);
  readonly #offsets: Int32Array;
  readonly #lengths: Int32Array;
  readonly #terms: Int32Array;
  readonly #checksums: Int32Array;
  /** Bytes of all records up to and with this one, since the log began. */
  readonly #positions: Float64Array;
  #basePosition = 0;
  #baseTerm = 0 as Term;
  #baseChecksum = 0;
  /** Invariant: first byte behind the last record. */
  #end = 0;

  constructor(limits: LogLimits, copyBytes: CopyBytes = copyBytesByView) {
    invariant(limits.storageBytes % 8 === 0, 'log storage is a multiple of 8 bytes');
    invariant(limits.recordBytesMax % 8 === 0, 'the largest record is a multiple of 8 bytes');
    invariant(
      limits.storageBytes >= 2 * limits.recordBytesMax,
      'the log holds two records of the largest size',
    );
    this.limits = limits;
    this.#copyBytes = copyBytes;
    // Behind the storage lies the inbox: where a record is checked while the storage has no room for it.
    const buffer = new ArrayBuffer(limits.storageBytes + limits.recordBytesMax);
    this.memory = recordMemory(new Uint8Array(buffer));
    this.#words = new Int32Array(buffer);
    this.#offsets = new Int32Array(limits.recordsMax);
    this.#lengths = new Int32Array(limits.recordsMax);
    this.#terms = new Int32Array(limits.recordsMax);
    this.#checksums = new Int32Array(limits.recordsMax);
    this.#positions = new Float64Array(limits.recordsMax);
  }

  get lastTerm(): Term {
    return this.termAt(this.lastIndex);
  }

  get lastChecksum(): number {
    return this.checksumAt(this.lastIndex);
  }

  /** An empty log that continues after record `index`, as after loading a checkpoint. */
  resetTo(index: LogIndex, term: Term, checksum: number): void {
    this.firstIndex = (index + 1) as LogIndex;
    this.lastIndex = index;
    this.#baseTerm = term;
    this.#baseChecksum = checksum;
    this.#end = 0;
  }

  has(index: LogIndex): boolean {
    return index >= this.firstIndex && index <= this.lastIndex;
  }

  /** Where the record begins in `memory`. */
  offsetAt(index: LogIndex): number {
    invariant(this.has(index), 'the record asked for is in the log');
    return this.#offsets[this.#slot(index)] ?? 0;
  }

  /** Bytes of the record, padding included. */
  bytesAt(index: LogIndex): number {
    invariant(this.has(index), 'the record asked for is in the log');
    return this.#lengths[this.#slot(index)] ?? 0;
  }

  /** Origin term of a record present, or of the one just before the first. */
  termAt(index: LogIndex): Term {
    if (index === this.firstIndex - 1) return this.#baseTerm;
    invariant(this.has(index), 'the term asked for is in the log');
    return (this.#terms[this.#slot(index)] ?? 0) as Term;
  }

  /** Content checksum of a record present, or of the one just before the first. */
  checksumAt(index: LogIndex): number {
    if (index === this.firstIndex - 1) return this.#baseChecksum;
    invariant(this.has(index), 'the checksum asked for is in the log');
    return this.#checksums[this.#slot(index)] ?? 0;
  }

  /** Bytes of the records behind `index`. */
  bytesBehind(index: LogIndex): number {
    return this.#positionAt(this.lastIndex) - this.#positionAt(index);
  }

  #positionAt(index: LogIndex): number {
    return this.has(index) ? (this.#positions[this.#slot(index)] ?? 0) : this.#basePosition;
  }

  /** True when the log holds exactly this record, or ended with it when its prefix was dropped. */
  matches(index: LogIndex, term: Term, checksum: number): boolean {
    if (index < this.firstIndex - 1 || index > this.lastIndex) return false;
    return this.termAt(index) === term && this.checksumAt(index) === checksum;
  }

  /**
   * Whether a leader may still append a record of `bytes`, when all up to `commitIndex` is committed. What is
   * not may fill not quite half of the log, so that it fits into that of any backup, wherever that one wraps.
   */
  takesProposal(bytes: number, commitIndex: LogIndex): boolean {
    const { storageBytes, recordBytesMax, recordsMax } = this.limits;
    if (this.lastIndex - commitIndex >= recordsMax / 2) return false;
    return this.bytesBehind(commitIndex) + bytes <= storageBytes / 2 - recordBytesMax;
  }

  /** Where a record of `bytes` could be written next, or -1 when the storage is full. */
  room(bytes: number): number {
    const held = this.lastIndex - this.firstIndex + 1;
    if (held === 0) return bytes <= this.limits.storageBytes ? 0 : -1;
    if (held >= this.limits.recordsMax) return -1;
    const first = this.#offsets[this.#slot(this.firstIndex)] ?? 0;
    const last = this.#offsets[this.#slot(this.lastIndex)] ?? 0;
    if (last < first) return first - this.#end >= bytes ? this.#end : -1;
    if (this.limits.storageBytes - this.#end >= bytes) return this.#end;
    return first >= bytes ? 0 : -1;
  }

  /**
   * Copies foreign bytes to where they may be checked without anyone changing them any more: the next free
   * place, or the inbox. Returns the offset; the log itself is as before.
   */
  stage(source: Uint8Array, offset: number, length: number): number {
    const free = this.room(length);
    const at = free === -1 ? this.limits.storageBytes : free;
    const from = source.byteOffset + offset;
    const short = length <= WORD_COPY_BYTES_MAX && (from & 3) === 0 && (length & 3) === 0;
    if (short) this.#copyWords(source, from >>> 2, at >>> 2, length >>> 2);
    else this.#copyBytes(this.memory.bytes, at, source, offset, length);
    return at;
  }

  /** The words of a foreign buffer are seen through a view that is made once for each buffer, not once a record. */
  #copyWords(source: Uint8Array, from: number, to: number, words: number): void {
    if (source.buffer !== this.#foreign.buffer) {
      this.#foreign = new Int32Array(source.buffer, 0, source.buffer.byteLength >>> 2);
    }
    const foreign = this.#foreign;
    for (let word = 0; word < words; word++) this.#words[to + word] = foreign[from + word] ?? 0;
  }

  /** Takes the record that lies sealed at `at` (from `room` or `stage`) as the next one. False: no room. */
  append(at: number, length: number, term: Term, checksum: number): boolean {
    const target = this.room(length);
    if (target === -1) return false;
    if (target !== at) this.memory.bytes.copyWithin(target, at, at + length);
    const position = this.#positionAt(this.lastIndex) + length;
    const index = (this.lastIndex + 1) as LogIndex;
    const slot = this.#slot(index);
    this.#positions[slot] = position;
    this.#offsets[slot] = target;
    this.#lengths[slot] = length;
    this.#terms[slot] = term;
    this.#checksums[slot] = checksum;
    this.#end = target + length;
    this.lastIndex = index;
    return true;
  }

  /** Forgets every record behind `index`. */
  truncateTo(index: LogIndex): void {
    invariant(index >= this.firstIndex - 1 && index <= this.lastIndex, 'a log is truncated within itself');
    this.lastIndex = index;
    this.#end = this.has(index) ? this.offsetAt(index) + this.bytesAt(index) : 0;
  }

  /** Forgets every record up to and with `index`. */
  dropThrough(index: LogIndex): void {
    if (index < this.firstIndex) return;
    invariant(index <= this.lastIndex, 'only records present are dropped');
    const term = this.termAt(index);
    const checksum = this.checksumAt(index);
    this.#basePosition = this.#positionAt(index);
    this.#baseTerm = term;
    this.#baseChecksum = checksum;
    this.firstIndex = (index + 1) as LogIndex;
    if (this.firstIndex > this.lastIndex) this.#end = 0;
  }

  /**
   * Drops the oldest records, none above `upTo` and never the last one, until `records` more of `bytes` in one
   * piece fit. False: they still do not.
   */
  makeRoom(bytes: number, records: number, upTo: LogIndex): boolean {
    const { recordsMax } = this.limits;
    while (this.room(bytes) === -1 || this.lastIndex - this.firstIndex + 1 + records > recordsMax) {
      if (this.firstIndex > upTo || this.firstIndex >= this.lastIndex) return false;
      this.dropThrough(this.firstIndex);
    }
    return true;
  }

  #slot(index: LogIndex): number {
    return index % this.limits.recordsMax;
  }
}
