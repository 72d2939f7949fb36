/** Memory of several regions in one tree, from real pages to what is found to differ. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ascending, bitmapOf, PlainHasher } from '../test/framework/plain-pages.ts';
import { bitmapWords } from './bitmap.ts';
import { packBitmap, packedBytesMax, unpackBitmap } from './packed-bitmap.ts';
import { PAGE_WORDS, PageSpace } from './page-space.ts';
import { sameRoot, topLevelOf, Traversal } from './traversal.ts';
import { MerkleTree } from './tree.ts';

/** Hashes the pages themselves, wherever their region lies. */
class SpaceHasher extends PlainHasher {
  readonly #space: PageSpace;

  constructor(space: PageSpace) {
    super();
    this.#space = space;
  }

  override hashPages(pages: Uint32Array, count: number, out: Uint8Array): void {
    for (let at = 0; at < count; at++) {
      const page = pages[at] ?? 0;
      const { firstPage, words } = this.#space.regionOf(page);
      const start = (page - firstPage) * PAGE_WORDS;
      const content = words.subarray(start, start + PAGE_WORDS);
      out.set(createHash('sha256').update(content).digest(), 32 * at);
    }
  }
}

/** Regions of these sizes, each beginning at the next multiple of 64, as QEMU's blocks do. */
function spaceOf(sizes: readonly number[]): { space: PageSpace; pages: number[] } {
  let firstPage = 0;
  const regions = sizes.map((pageCount) => {
    const region = { firstPage, pageCount, words: new Uint32Array(pageCount * PAGE_WORDS) };
    firstPage += Math.ceil(pageCount / 64) * 64;
    return region;
  });
  const pages = regions.flatMap((region) =>
    Array.from({ length: region.pageCount }, (_, page) => region.firstPage + page),
  );
  return { space: new PageSpace(regions, bitmapWords(firstPage)), pages };
}

function write(space: PageSpace, page: number, word: number, value: number): void {
  const { firstPage, words } = space.regionOf(page);
  words[(page - firstPage) * PAGE_WORDS + word] = value;
}

describe('regions of any sizes in one tree', () => {
  it('give exactly the pages that differ, for any union and any divergence', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 0, max: 100 }),
        fc.integer({ min: 0, max: 100 }),
        fc.infiniteStream(fc.nat(99)),
        fc.integer({ min: 2, max: 32 }),
        fc.nat(),
        (sizes, dirtyPercent, divergentPercent, die, fanOut, anyLevel) => {
          const roll = (percent: number): boolean => die.next().value < percent;
          const [leader, backup] = [spaceOf(sizes), spaceOf(sizes)];
          const dirty = leader.pages.filter(() => roll(dirtyPercent));
          const differing = dirty.filter(() => roll(divergentPercent)).sort(ascending);
          for (const page of differing) write(backup.space, page, page % PAGE_WORDS, 1 + page);
          const size = 64 * Math.ceil((Math.max(...leader.pages) + 1) / 64);
          const bitmap = bitmapOf(dirty, size);
          const packed = new Uint8Array(packedBytesMax(bitmap.length));
          const union = new Uint32Array(bitmap.length);
          unpackBitmap(packed.subarray(0, packBitmap(bitmap, packed)), union);
          backup.space.requireBitmap(union);
          const trees = [leader, backup].map(({ space }) => new MerkleTree(new SpaceHasher(space), fanOut));
          for (const tree of trees) tree.build(union);
          expect(found(trees, anyLevel)).toEqual(differing);
        },
      ),
      { numRuns: 40 },
    );
  });
});

function found([leader, backup]: readonly MerkleTree[], anyLevel: number): number[] {
  if (leader === undefined || backup === undefined || sameRoot(leader.root(), backup.root())) return [];
  const [one, other] = [new Traversal(), new Traversal()];
  const level = anyLevel % (topLevelOf(leader) + 1);
  one.begin(leader, level);
  other.begin(backup, level);
  while (!one.finished) {
    const hashes = new Uint8Array(one.hashBytes);
    const answer = new Uint8Array(one.answerBytes);
    one.writeHashes(hashes);
    other.compare(hashes, answer);
    one.advance(answer);
    other.advance(answer);
  }
  return [...one.divergentPages.subarray(0, one.divergentCount)];
}
