import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bitmapWords, setBit } from './bitmap.ts';
import type { PageHasher } from './page-hasher.ts';
import { MerkleRefusal } from './refusal.ts';
import { sameRoot, Traversal } from './traversal.ts';
import { MerkleTree } from './tree.ts';

/** Pages are single numbers here; SHA-256 stands in for BLAKE3, which only the addon has. */
function hasherOf(contents: ReadonlyMap<number, number>): PageHasher {
  return {
    hashPages(pages, count, out) {
      for (let at = 0; at < count; at++) {
        const page = pages[at] ?? 0;
        out.set(
          createHash('sha256')
            .update(`page ${page} ${contents.get(page) ?? 0}`)
            .digest(),
          32 * at,
        );
      }
    },
    hashParents(input, pieceBytes, count, out) {
      for (let at = 0; at < count; at++) {
        const piece = input.subarray(at * pieceBytes, (at + 1) * pieceBytes);
        out.set(createHash('sha256').update(piece).digest(), 32 * at);
      }
    },
  };
}

function bitmapOf(pages: Iterable<number>, size: number): Uint32Array {
  const words = new Uint32Array(bitmapWords(size));
  for (const page of pages) setBit(words, page);
  return words;
}

interface Found {
  readonly pages: number[];
  readonly exchanges: number;
  readonly bytes: number;
}

function exchange(
  leader: MerkleTree,
  backup: MerkleTree,
  one = new Traversal(),
  other = new Traversal(),
): Found {
  if (sameRoot(leader.root(), backup.root())) return { pages: [], exchanges: 0, bytes: 32 };
  one.begin(leader);
  other.begin(backup);
  let exchanges = 0;
  let bytes = 32;
  while (!one.finished) {
    const hashes = new Uint8Array(one.hashBytes);
    one.writeHashes(hashes);
    const answer = new Uint8Array(other.answerBytes);
    other.compare(hashes, answer);
    one.advance(answer);
    other.advance(answer);
    exchanges++;
    bytes += hashes.length + answer.length;
  }
  expect(other.finished).toBe(true);
  expect([...other.divergentPages.subarray(0, other.divergentCount)]).toEqual([
    ...one.divergentPages.subarray(0, one.divergentCount),
  ]);
  return { pages: [...one.divergentPages.subarray(0, one.divergentCount)], exchanges, bytes };
}

const SIZE = 3000;

describe('the traversal', () => {
  it('finds exactly the differing pages of any union, whatever the fan-out', () => {
    const reused = [new Traversal(), new Traversal()] as const;
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: 700 }),
        fc.infiniteStream(fc.boolean()),
        fc.integer({ min: 2, max: 32 }),
        (union, coin, fanOut) => {
          const differing = union.filter(() => coin.next().value === true).sort((one, other) => one - other);
          const bitmap = bitmapOf(union, SIZE);
          const leader = new MerkleTree(hasherOf(new Map()), fanOut);
          const backup = new MerkleTree(hasherOf(new Map(differing.map((page) => [page, 1]))), fanOut);
          leader.build(bitmap);
          backup.build(bitmap);
          expect(exchange(leader, backup, ...reused).pages).toEqual(differing);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('ends at once when the roots are equal, differing pages outside the union notwithstanding', () => {
    const bitmap = bitmapOf([1, 5, 900], SIZE);
    const leader = new MerkleTree(hasherOf(new Map()));
    const backup = new MerkleTree(hasherOf(new Map([[2, 7]])));
    leader.build(bitmap);
    backup.build(bitmap);
    expect(exchange(leader, backup)).toEqual({ pages: [], exchanges: 0, bytes: 32 });
  });

  it('needs one exchange for each level below the top', () => {
    const pages = Array.from({ length: 14_295 }, (_, page) => page);
    const bitmap = bitmapOf(pages, 20_000);
    const leader = new MerkleTree(hasherOf(new Map()));
    const backup = new MerkleTree(hasherOf(new Map([[14_294, 1]])));
    leader.build(bitmap);
    backup.build(bitmap);
    const found = exchange(leader, backup);
    expect(found.pages).toEqual([14_294]);
    expect(found.exchanges).toBe(4);
    expect(found.bytes).toBeLessThan(2_000);
  });

  it('refuses hashes of a wrong length, answers for nodes not asked, and an answer that nothing differs', () => {
    const tree = new MerkleTree(hasherOf(new Map()));
    tree.build(bitmapOf([1, 2, 3], SIZE));
    const traversal = new Traversal();
    traversal.begin(tree);
    expect(() => traversal.compare(new Uint8Array(95), new Uint8Array(1))).toThrow(MerkleRefusal);
    expect(() => traversal.advance(new Uint8Array(2))).toThrow(MerkleRefusal);
    expect(() => traversal.advance(Uint8Array.of(0b1000))).toThrow(/not asked/);
    expect(() => traversal.advance(Uint8Array.of(0))).toThrow(/not of one shape/);
    traversal.advance(Uint8Array.of(0b101));
    expect([...traversal.divergentPages.subarray(0, traversal.divergentCount)]).toEqual([1, 3]);
  });
});

describe('the tree', () => {
  it('depends on nothing but the bitmap and the contents, not on what it held before', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: 400 }),
        fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: 400 }),
        (before, now) => {
          const used = new MerkleTree(hasherOf(new Map([[3, 1]])));
          used.build(bitmapOf(before, SIZE));
          used.build(bitmapOf(now, SIZE));
          const fresh = new MerkleTree(hasherOf(new Map([[3, 1]])));
          fresh.build(bitmapOf(now, SIZE));
          expect(Buffer.from(used.root()).equals(fresh.root())).toBe(true);
          expect(used.leafCount).toBe(now.length);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('gives another root to a tree of another shape, the empty one included', () => {
    const roots = new Set<string>();
    const same = hasherOf(new Map());
    const blind: PageHasher = { ...same, hashPages: (_pages, count, out) => void out.fill(7, 0, count * 32) };
    for (const fanOut of [2, 16]) {
      for (const count of [0, 1, 2, 15, 16, 17, 255, 256, 257]) {
        const tree = new MerkleTree(blind, fanOut);
        tree.build(bitmapOf(Array.from({ length: count }, (_, page) => page), SIZE)); // prettier-ignore
        roots.add(Buffer.from(tree.root()).toString('hex'));
      }
    }
    expect(roots.size).toBe(18);
  });

  it('refuses a fan-out that no piece can hold', () => {
    expect(() => new MerkleTree(hasherOf(new Map()), 33)).toThrow(/from 2 to 32/);
    expect(() => new MerkleTree(hasherOf(new Map()), 1)).toThrow(RangeError);
  });
});
