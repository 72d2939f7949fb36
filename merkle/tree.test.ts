import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bitmapOf, PlainHasher } from '../test/framework/plain-pages.ts';
import type { PageHasher } from './page-hasher.ts';
import { MerkleTree } from './tree.ts';

const SIZE = 3000;
const pageSets = fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: 400 });
const fanOuts = fc.integer({ min: 2, max: 32 });

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Everything that can be seen of a tree. */
function levelsOf(tree: MerkleTree): string[] {
  const levels = Array.from({ length: tree.levelCount }, (_, level) =>
    hex(tree.levelHashes(level).subarray(0, 32 * tree.nodeCount(level))),
  );
  return [hex(tree.root()), ...levels];
}

describe('the tree', () => {
  it('depends on nothing but the bitmap and the contents, not on what it held before', () => {
    fc.assert(
      fc.property(pageSets, pageSets, (before, now) => {
        const used = new MerkleTree(new PlainHasher(new Map([[3, 1]])));
        used.build(bitmapOf(before, SIZE));
        used.build(bitmapOf(now, SIZE));
        const fresh = new MerkleTree(new PlainHasher(new Map([[3, 1]])));
        fresh.build(bitmapOf(now, SIZE));
        expect(levelsOf(used)).toEqual(levelsOf(fresh));
        expect(used.leafCount).toBe(now.length);
      }),
      { numRuns: 40 },
    );
  });

  it('becomes by updates what a build makes of the same bitmap and contents', () => {
    const steps = fc.array(fc.record({ union: pageSets, writes: pageSets, keep: fc.boolean() }), {
      minLength: 1,
      maxLength: 6,
    });
    fc.assert(
      fc.property(steps, fanOuts, (rounds, fanOut) => {
        const contents = new Map<number, number>();
        const updated = new MerkleTree(new PlainHasher(contents), fanOut);
        let union: number[] = [];
        for (const [round, step] of rounds.entries()) {
          if (!step.keep) union = step.union;
          for (const page of step.writes) contents.set(page, round + 1);
          updated.update(bitmapOf(union, SIZE), bitmapOf(step.writes, SIZE));
          const built = new MerkleTree(new PlainHasher(contents), fanOut);
          built.build(bitmapOf(union, SIZE));
          expect(levelsOf(updated)).toEqual(levelsOf(built));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('hashes in an update only what changed, and the nodes above it', () => {
    const contents = new Map<number, number>();
    const hasher = new PlainHasher(contents);
    const tree = new MerkleTree(hasher, 16);
    const all = bitmapOf(
      Array.from({ length: 2560 }, (_, page) => page),
      SIZE,
    );
    tree.build(all);
    for (const page of [0, 17, 18, 2559]) contents.set(page, 1);
    [hasher.hashedPages, hasher.hashedPieces] = [0, 0];
    expect(tree.update(all, bitmapOf([0, 17, 18, 2559, 2999], SIZE))).toBe(4);
    // Groups 0, 1 and 159 of level 1, two of level 2, the top, the root.
    expect([hasher.hashedPages, hasher.hashedPieces]).toEqual([4, 3 + 2 + 1 + 1]);
    expect(tree.update(all, bitmapOf([], SIZE))).toBe(0);
    expect([hasher.hashedPages, hasher.hashedPieces]).toEqual([4, 7]);
  });

  it('keeps in an update the hashes of pages that remain while others come and go', () => {
    const hasher = new PlainHasher();
    const tree = new MerkleTree(hasher);
    tree.build(bitmapOf([1, 2, 3, 4, 5], SIZE));
    expect(tree.update(bitmapOf([0, 2, 4, 6, 8], SIZE), bitmapOf([4], SIZE))).toBe(4);
    expect(tree.pageOf(4)).toBe(8);
  });

  it('refuses bitmaps of two sizes in an update and stays as it is', () => {
    const tree = new MerkleTree(new PlainHasher());
    tree.build(bitmapOf([1, 2], SIZE));
    const before = levelsOf(tree);
    expect(() => tree.update(bitmapOf([1], SIZE), new Uint32Array(1))).toThrow(
      expect.objectContaining({ code: 'GAIA_MERKLE_BITMAP_SIZE' }) as Error,
    );
    expect(levelsOf(tree)).toEqual(before);
  });

  it('relies on nothing after its hasher broke off', () => {
    let fails = false;
    class Fragile extends PlainHasher {
      override hashParentsAt(...args: Parameters<PlainHasher['hashParentsAt']>): void {
        if (fails) throw new Error('broken off');
        super.hashParentsAt(...args);
      }
      override hashParents(...args: Parameters<PlainHasher['hashParents']>): void {
        if (fails) throw new Error('broken off');
        super.hashParents(...args);
      }
    }
    const contents = new Map<number, number>();
    const all = bitmapOf(Array(500).keys(), SIZE);
    const few = bitmapOf([7, 300], SIZE);
    for (const union of [all, few]) {
      const tree = new MerkleTree(new Fragile(contents));
      tree.build(all);
      contents.set(300, 9);
      fails = true;
      expect(() => tree.update(union, few)).toThrow('broken off');
      fails = false;
      tree.update(union, bitmapOf([], SIZE));
      const fresh = new MerkleTree(new PlainHasher(contents));
      fresh.build(union);
      expect(levelsOf(tree)).toEqual(levelsOf(fresh));
    }
  });

  it('gives another root to a tree of another shape, the empty one included', () => {
    const roots = new Set<string>();
    const blind: PageHasher = Object.assign(new PlainHasher(), {
      hashPages: (_pages: Uint32Array, count: number, out: Uint8Array) => void out.fill(7, 0, count * 32),
    });
    for (const fanOut of [2, 16]) {
      for (const count of [0, 1, 2, 15, 16, 17, 255, 256, 257]) {
        const tree = new MerkleTree(blind, fanOut);
        const pages = Array.from({ length: count }, (_, page) => page);
        tree.build(bitmapOf(pages, SIZE));
        roots.add(hex(tree.root()));
      }
    }
    expect(roots.size).toBe(18);
  });

  it('refuses a fan-out that no piece can hold', () => {
    expect(() => new MerkleTree(new PlainHasher(), 33)).toThrow(/from 2 to 32/);
    expect(() => new MerkleTree(new PlainHasher(), 1)).toThrow(RangeError);
  });
});
