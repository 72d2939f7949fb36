/**
 * The difference of some words from a base, as runs of bytes:
 *
 *   run     skip | length | bytes        both numbers 7 bits a byte, lowest first; the last has bit 7 clear
 *   skip    bytes that are as in the base, since the end of the last run
 *   length  at least 1
 *
 * What the base lacks at its end counts as zeros, so a delta from an empty base is a sparse page. Applying a delta to
 * its base any number of times gives the same.
 */

/** Two runs with so many equal bytes between them are one: beginning another costs as much. */
const GAP_MAX = 2;
/** Skip and length of a run, each below 2^28. */
const RUN_HEADER_BYTES_MAX = 8;
const DELTA_BYTES_MAX = 2 ** 28;

/** Says that there is no room. */
export const NO_ROOM = -1;

/**
 * Writes how the `count` words at `targetAt` differ from a base, to `out` from `at`. Returns where the delta ends, or
 * NO_ROOM when it does not fit below `end`: then what lies there means nothing.
 */
export function writeDelta(
  base: Uint32Array,
  baseAt: number,
  baseCount: number,
  target: Uint32Array,
  targetAt: number,
  count: number,
  out: Uint8Array,
  at: number,
  end: number,
): number {
  if (count * 4 >= DELTA_BYTES_MAX) throw new RangeError(`A delta of ${count} words is too long`);
  let written = at;
  let covered = 0;
  // The run under way, empty at first.
  let runStart = 0;
  let runEnd = 0;
  for (let word = 0; word < count; word++) {
    const now = target[targetAt + word] ?? 0;
    const before = word < baseCount ? (base[baseAt + word] ?? 0) : 0;
    if (now === before) continue;
    const difference = now ^ before;
    for (let byte = 0; byte < 4; byte++) {
      if (((difference >>> (8 * byte)) & 0xff) === 0) continue;
      const position = 4 * word + byte;
      if (runEnd > runStart && position - runEnd <= GAP_MAX) {
        runEnd = position + 1;
        continue;
      }
      if (runEnd > runStart) {
        written = writeRun(target, targetAt, covered, runStart, runEnd, out, written, end);
        if (written === NO_ROOM) return NO_ROOM;
        covered = runEnd;
      }
      runStart = position;
      runEnd = position + 1;
    }
  }
  if (runEnd > runStart) written = writeRun(target, targetAt, covered, runStart, runEnd, out, written, end);
  return written;
}

function writeRun(
  target: Uint32Array,
  targetAt: number,
  covered: number,
  start: number,
  runEnd: number,
  out: Uint8Array,
  at: number,
  end: number,
): number {
  const length = runEnd - start;
  if (at + RUN_HEADER_BYTES_MAX + length > end) return NO_ROOM;
  let written = writeNumber(start - covered, out, at);
  written = writeNumber(length, out, written);
  for (let position = start; position < runEnd; position++) {
    out[written++] = (target[targetAt + (position >>> 2)] ?? 0) >>> (8 * (position & 3));
  }
  return written;
}

function writeNumber(value: number, out: Uint8Array, at: number): number {
  let rest = value;
  let written = at;
  for (; rest >= 0x80; rest >>>= 7) out[written++] = 0x80 | (rest & 0x7f);
  out[written++] = rest;
  return written;
}

/** Reads a delta run by run, and only what is one. */
export class DeltaReader {
  #bytes = new Uint8Array(0);
  #at = 0;
  #end = 0;
  #position = 0;
  #limit = 0;
  #harmed = false;
  /** The run: first byte that it replaces, how many, and where its own bytes lie. */
  runStart = 0;
  runLength = 0;
  runAt = 0;

  /** Begins with bytes `at` to `end - 1` of `bytes`, a delta of something of `length` bytes. */
  begin(bytes: Uint8Array<ArrayBuffer>, at: number, end: number, length: number): void {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
    this.#position = 0;
    this.#limit = length;
    this.#harmed = false;
  }

  /** What was read is no delta: cut short, or past the end of what it is for. */
  get harmed(): boolean {
    return this.#harmed;
  }

  /** The next run is there. False at the end, and when the delta is harmed. */
  next(): boolean {
    if (this.#harmed || this.#at === this.#end) return false;
    const skip = this.#number();
    const length = this.#number();
    this.runStart = this.#position + skip;
    this.runLength = length;
    this.runAt = this.#at;
    if (length < 1 || this.runStart + length > this.#limit || this.#at + length > this.#end) {
      this.#harmed = true;
      return false;
    }
    this.#at += length;
    this.#position = this.runStart + length;
    return true;
  }

  /** Reads to the end. True when all of it is a delta. */
  isWhole(): boolean {
    while (this.next());
    return !this.#harmed;
  }

  /** Puts the rest of the runs over the base that lies in `words` from `wordAt`. `isWhole` was true of it before. */
  applyTo(words: Uint32Array, wordAt: number): void {
    while (this.next()) {
      for (let byte = 0; byte < this.runLength; byte++) {
        const position = this.runStart + byte;
        const word = wordAt + (position >>> 2);
        const shift = 8 * (position & 3);
        const value = this.#bytes[this.runAt + byte] ?? 0;
        words[word] = ((words[word] ?? 0) & ~(0xff << shift)) | (value << shift);
      }
    }
  }

  #number(): number {
    let value = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (this.#at === this.#end) break;
      const byte = this.#bytes[this.#at++] ?? 0;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    this.#harmed = true;
    return 0;
  }
}
