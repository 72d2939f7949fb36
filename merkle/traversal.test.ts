import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ascending, bitmapOf, PlainHasher } from '../test/framework/plain-pages.ts';
import { requireSameRoot, sameRoot, topLevelOf, Traversal } from './traversal.ts';
import { MerkleTree } from './tree.ts';

interface Found {
  readonly pages: number[];
  readonly exchanges: number;
  readonly bytes: number;
}

function exchange(
  leader: MerkleTree,
  backup: MerkleTree,
  level = topLevelOf(leader),
  one = new Traversal(),
  other = new Traversal(),
): Found {
  if (sameRoot(leader.root(), backup.root())) return { pages: [], exchanges: 0, bytes: 32 };
  one.begin(leader, level);
  other.begin(backup, level);
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
  const pages = [...one.divergentPages.subarray(0, one.divergentCount)];
  expect([...other.divergentPages.subarray(0, other.divergentCount)]).toEqual(pages);
  expect(pages).toEqual(
    [...one.divergentLeaves.subarray(0, one.divergentCount)].map((leaf) => leader.pageOf(leaf)),
  );
  return { pages, exchanges, bytes };
}

const SIZE = 3000;
const range = (count: number): number[] => Array.from({ length: count }, (_, page) => page);
const refusal = (code: string): Error => expect.objectContaining({ code }) as Error;

function treeOf(pages: readonly number[], different: readonly number[], fanOut = 16): MerkleTree {
  const tree = new MerkleTree(new PlainHasher(new Map(different.map((page) => [page, 1]))), fanOut);
  tree.build(bitmapOf(pages, 20_000));
  return tree;
}

describe('the traversal', () => {
  it('finds exactly the differing pages of any union, whatever the fan-out and wherever it begins', () => {
    const reused = [new Traversal(), new Traversal()] as const;
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: 700 }),
        fc.integer({ min: 0, max: 100 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 99 })),
        fc.integer({ min: 2, max: 32 }),
        fc.nat(),
        (union, percent, die, fanOut, anyLevel) => {
          const differing = union.filter(() => die.next().value < percent).sort(ascending);
          const leader = treeOf(union, [], fanOut);
          const backup = treeOf(union, differing, fanOut);
          const level = anyLevel % (topLevelOf(leader) + 1);
          expect(exchange(leader, backup, level, ...reused).pages).toEqual(differing);
        },
      ),
      { numRuns: 80 },
    );
  });

  it('finds a difference in the last, partial group of any tree', () => {
    for (const fanOut of [2, 3, 16, 32]) {
      for (const count of [1, 2, 15, 16, 17, 31, 33, 255, 257, 273]) {
        const pages = range(count);
        const found = exchange(treeOf(pages, [], fanOut), treeOf(pages, [count - 1], fanOut));
        expect(found.pages).toEqual([count - 1]);
      }
    }
  });

  it('ends at once when the roots are equal, differing pages outside the union notwithstanding', () => {
    const pages = [1, 5, 900];
    expect(exchange(treeOf(pages, []), treeOf(pages, [2]))).toEqual({ pages: [], exchanges: 0, bytes: 32 });
  });

  it('needs one exchange for each level below the top, a flat one a single exchange', () => {
    const pages = range(14_295);
    const [leader, backup] = [treeOf(pages, []), treeOf(pages, [14_294])];
    const found = exchange(leader, backup);
    expect(found).toMatchObject({ pages: [14_294], exchanges: 4 });
    expect(found.bytes).toBeLessThan(1_000);
    expect(exchange(leader, backup, 0)).toMatchObject({
      pages: [14_294],
      exchanges: 1,
      bytes: 32 + 14_295 * 16 + Math.ceil(14_295 / 8),
    });
  });

  it('refuses hashes of a wrong length, answers for nodes not asked, and an answer that nothing differs', () => {
    const traversal = new Traversal();
    traversal.begin(treeOf([1, 2, 3], []));
    const room = new Uint8Array(1);
    for (const bytes of [0, 47, 49, 96])
      expect(() => traversal.compare(new Uint8Array(bytes), room)).toThrow(refusal('GAIA_MERKLE_LENGTH'));
    expect(() => traversal.advance(new Uint8Array(2))).toThrow(refusal('GAIA_MERKLE_LENGTH'));
    expect(() => traversal.advance(Uint8Array.of(0b1000))).toThrow(refusal('GAIA_MERKLE_NOT_ASKED'));
    expect(() => traversal.advance(Uint8Array.of(0))).toThrow(refusal('GAIA_MERKLE_NO_DIFFERENCE'));
    traversal.advance(Uint8Array.of(0b101));
    expect([...traversal.divergentPages.subarray(0, traversal.divergentCount)]).toEqual([1, 3]);
  });

  it('refuses to begin at a level that the tree lacks', () => {
    const tree = treeOf(range(300), []);
    for (const level of [-1, 0.5, 3, NaN])
      expect(() => new Traversal().begin(tree, level)).toThrow(refusal('GAIA_MERKLE_LEVEL'));
    expect(() => new Traversal().begin(treeOf([], []), 1)).toThrow(refusal('GAIA_MERKLE_LEVEL'));
  });

  it('ends at once over an empty tree', () => {
    const traversal = new Traversal();
    traversal.begin(treeOf([], []));
    expect(traversal.finished).toBe(true);
  });
});

describe('the roots after an apply', () => {
  it('are refused when they differ, or when one is none', () => {
    const [one, other] = [treeOf([1], []).root(), treeOf([1], [1]).root()];
    expect(() => requireSameRoot(one, one.slice())).not.toThrow();
    expect(() => requireSameRoot(one, other)).toThrow(refusal('GAIA_MERKLE_ROOT'));
    expect(() => requireSameRoot(one, one.subarray(0, 31))).toThrow(refusal('GAIA_MERKLE_LENGTH'));
  });
});
