/** The tree's hash function over the blocks of a guest, and the same pages by their numbers. */
import { createRequire } from 'node:module';
import { afterAll, describe, expect, it } from 'vitest';
import { bitmapWords, setBit } from '../../merkle/bitmap.ts';
import { PAGE_WORDS } from '../../merkle/page-space.ts';
import { MerkleTree } from '../../merkle/tree.ts';
import { PageHasher, pageSpaceOf } from '../../vmm/io/page-hasher.ts';
import { loadAddon } from './addon.ts';

const oracle = createRequire(import.meta.url)('blake3') as { hash(input: Uint8Array): Buffer };
const addon = loadAddon();
afterAll(() => void addon.blake3Threads(1));

/** Blocks as a port hands them over, in another order than their bits, with gaps up to multiples of 64. */
const blocks = [
  [128, 3],
  [0, 70],
  [192, 64],
].map(([bitmapBit = 0, pageCount = 0]) => {
  // prettier-ignore
  const memory = new ArrayBuffer(pageCount * 4096);
  new Uint32Array(memory).forEach((_, at, words) => {
    words[at] = Math.imul(at + bitmapBit, 2_654_435_761);
  });
  return { bitmapBit, pageCount, memory };
});
const numbers = blocks
  .flatMap(({ bitmapBit, pageCount }) => Array.from({ length: pageCount }, (_, page) => bitmapBit + page))
  .sort((one, other) => one - other);

function bytesOf(page: number): Uint8Array {
  const block = blocks.find(({ bitmapBit, pageCount }) => page >= bitmapBit && page < bitmapBit + pageCount);
  return new Uint8Array(block?.memory ?? new ArrayBuffer(0), (page - (block?.bitmapBit ?? 0)) * 4096, 4096);
}

describe('the pages of a guest with several blocks', () => {
  it.each([1, 2])('have their ordinary hashes at their place in one tree, with %i threads', (threads) => {
    const tree = new MerkleTree(new PageHasher(blocks, threads));
    const bitmap = new Uint32Array(bitmapWords(256));
    const chosen = numbers.filter((page) => page % 7 !== 3);
    for (const page of chosen) setBit(bitmap, page);
    tree.build(bitmap);
    expect(tree.leafCount).toBe(chosen.length);
    for (const [leaf, page] of chosen.entries()) {
      expect(tree.pageOf(leaf)).toBe(page);
      expect(oracle.hash(bytesOf(page)).equals(tree.hashes(0, leaf))).toBe(true);
    }
  });

  it('are refused by name between the blocks and behind them', () => {
    const hasher = new PageHasher(blocks);
    for (const page of [70, 127, 131, 191, 256]) {
      expect(() => hasher.hashPages(Uint32Array.of(0, page), 2, new Uint8Array(64))).toThrow(
        expect.objectContaining({ code: 'GAIA_MERKLE_NO_SUCH_PAGE' }) as Error,
      );
    }
  });

  it('lie where their numbers say', () => {
    const space = pageSpaceOf(blocks, bitmapWords(320));
    for (const page of numbers) {
      const { firstPage, words } = space.regionOf(page);
      const at = (page - firstPage) * PAGE_WORDS;
      expect(Buffer.compare(new Uint8Array(words.buffer, 4 * at, 4096), bytesOf(page))).toBe(0);
    }
    expect(() => space.requireBitmap(new Uint32Array(10))).not.toThrow();
    expect(() => space.requireBitmap(new Uint32Array(8))).toThrow(/must run the same machine/);
  });
});
