/**
 * A bitmap as it travels: most words of a dirty bitmap are zero, so runs of them are counted.
 *
 *   u32   words of the bitmap
 *   then until all words are told, little-endian:
 *     u16 zeros | u16 others      so many words of zero, then so many that follow as they are
 *     u32 ...
 */
import { MerkleRefusal } from './refusal.ts';

const RUN_MAX = 0xffff;

/** No bitmap of `words` words takes more: each head but the first stands for a word of zeros, or for a full run. */
export function packedBytesMax(words: number): number {
  return 4 + 4 * words + 4 * (1 + Math.ceil(words / RUN_MAX));
}

/** Packs to the front of `out`, which has `packedBytesMax` bytes. Returns how many it took. */
export function packBitmap(words: Uint32Array, out: Uint8Array): number {
  putWord(out, 0, words.length);
  let at = 4;
  for (let word = 0; word < words.length;) {
    const zeros = runOf(words, word, true);
    const others = runOf(words, word + zeros, false);
    putWord(out, at, zeros | (others << 16));
    at += 4;
    for (let other = word + zeros; other < word + zeros + others; other++, at += 4) {
      putWord(out, at, words[other] ?? 0);
    }
    word += zeros + others;
  }
  return at;
}

/** How many words from `start` on are zero, or are not. */
function runOf(words: Uint32Array, start: number, zero: boolean): number {
  const end = Math.min(words.length, start + RUN_MAX);
  let word = start;
  while (word < end && (words[word] === 0) === zero) word++;
  return word - start;
}

/** Fills all of `out` from a packed bitmap. Refuses one of another size and what is none; then `out` means nothing. */
export function unpackBitmap(packed: Uint8Array, out: Uint32Array): void {
  const count = packed.length < 4 ? -1 : wordAt(packed, 0);
  if (count !== out.length) {
    throw new MerkleRefusal(
      'GAIA_MERKLE_BITMAP_SIZE',
      `A bitmap of ${count} words does not fit one of ${out.length} words: both replicas must run the same machine`,
    );
  }
  let at = 4;
  let word = 0;
  while (word < count) {
    if (at + 4 > packed.length) refuse('it ends too soon');
    const head = wordAt(packed, at);
    const zeros = head & RUN_MAX;
    const others = head >>> 16;
    at += 4;
    if (head === 0 || word + zeros + others > count) refuse(`a run at byte ${at - 4} does not fit`);
    if (at + 4 * others > packed.length) refuse('it ends too soon');
    out.fill(0, word, word + zeros);
    word += zeros;
    for (const end = word + others; word < end; word++, at += 4) out[word] = wordAt(packed, at);
  }
  if (at !== packed.length) refuse(`${packed.length - at} bytes are left over`);
}

function refuse(why: string): never {
  throw new MerkleRefusal('GAIA_MERKLE_BITMAP_FORM', `The bitmap is malformed: ${why}`);
}

function putWord(out: Uint8Array, at: number, word: number): void {
  out[at] = word;
  out[at + 1] = word >>> 8;
  out[at + 2] = word >>> 16;
  out[at + 3] = word >>> 24;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24)) >>>
    0
  );
}
