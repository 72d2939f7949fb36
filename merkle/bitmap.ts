/**
 * Bitmaps of pages: bit n of the bitmap is bit n % 32 of word n / 32, the layout that x86 gives to 64-bit
 * words as well. Two bitmaps meet only when they are of one size.
 */
import { MerkleRefusal } from './refusal.ts';

/** Words of a bitmap that covers `pages` pages. */
export function bitmapWords(pages: number): number {
  return Math.ceil(pages / 32);
}

export function setBit(words: Uint32Array, page: number): void {
  const word = page >>> 5;
  words[word] = (words[word] ?? 0) | (1 << (page & 31));
}

export function hasBit(words: Uint32Array, page: number): boolean {
  return (((words[page >>> 5] ?? 0) >>> (page & 31)) & 1) === 1;
}

/** target |= source */
export function uniteInto(target: Uint32Array, source: Uint32Array): void {
  requireSameSize(target, source);
  for (let word = 0; word < target.length; word++) target[word] = (target[word] ?? 0) | (source[word] ?? 0);
}

/** target &= ~source */
export function subtractFrom(target: Uint32Array, source: Uint32Array): void {
  requireSameSize(target, source);
  for (let word = 0; word < target.length; word++) target[word] = (target[word] ?? 0) & ~(source[word] ?? 0);
}

export function countBits(words: Uint32Array): number {
  let count = 0;
  for (let word = words.length - 1; word >= 0; word--) {
    let rest = words[word] ?? 0;
    rest -= (rest >>> 1) & 0x5555_5555;
    rest = (rest & 0x3333_3333) + ((rest >>> 2) & 0x3333_3333);
    count += Math.imul((rest + (rest >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
  }
  return count;
}

/** Writes the set pages in ascending order; `out` holds at least `countBits(words)`. Returns how many. */
export function listBits(words: Uint32Array, out: Uint32Array): number {
  let count = 0;
  for (let word = 0; word < words.length; word++) {
    for (let rest = words[word] ?? 0; rest !== 0; rest &= rest - 1) {
      out[count++] = (word << 5) + 31 - Math.clz32(rest & -rest);
    }
  }
  return count;
}

/** Refuses bitmaps of two sizes: they are not of one machine. */
export function requireSameSize(one: Uint32Array, other: Uint32Array): void {
  if (one.length !== other.length) {
    throw new MerkleRefusal(
      'GAIA_MERKLE_BITMAP_SIZE',
      `A bitmap of ${other.length} words does not fit one of ${one.length} words: both replicas must run the same machine`,
    );
  }
}
