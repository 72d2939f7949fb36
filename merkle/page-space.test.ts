import { describe, expect, it } from 'vitest';
import { bitmapWords, setBit } from './bitmap.ts';
import { PAGE_WORDS, PageSpace } from './page-space.ts';

const refusal = (code: string): Error => expect.objectContaining({ code }) as Error;
const region = (firstPage: number, pageCount: number) => ({
  firstPage,
  pageCount,
  words: new Uint32Array(pageCount * PAGE_WORDS),
});
const regions = [region(0, 10), region(64, 1), region(128, 70)];
const bitmapWith = (page: number): Uint32Array => {
  const words = new Uint32Array(bitmapWords(256));
  setBit(words, page);
  return words;
};

describe('the pages of several regions', () => {
  const space = new PageSpace(regions, bitmapWords(256));

  it('are found in the region that has them, in any order', () => {
    for (const [page, index] of [
      [0, 0],
      [64, 1],
      [9, 0],
      [128, 2],
      [197, 2],
      [0, 0],
    ] as const) {
      // prettier-ignore
      expect(space.regionOf(page)).toBe(regions[index]);
    }
    expect(space.pageLimit).toBe(198);
  });

  it('are refused by name where no region has them', () => {
    for (const page of [-1, 10, 63, 65, 127, 198, 255, 1e9, NaN]) {
      expect(() => space.regionOf(page)).toThrow(refusal('GAIA_MERKLE_NO_SUCH_PAGE'));
    }
    for (const page of [10, 63, 65, 127, 198, 255]) {
      expect(() => space.requireBitmap(bitmapWith(page))).toThrow(`This machine has no page ${page}`);
    }
    for (const page of [0, 9, 64, 128, 197])
      expect(() => space.requireBitmap(bitmapWith(page))).not.toThrow();
  });

  it('have bitmaps of one size', () => {
    for (const words of [0, 7, 9]) {
      expect(() => space.requireBitmap(new Uint32Array(words))).toThrow(refusal('GAIA_MERKLE_BITMAP_SIZE'));
    }
  });

  it('must not overlap, nor be shorter than they say', () => {
    expect(() => new PageSpace([region(0, 10), region(9, 1)])).toThrow(RangeError);
    expect(() => new PageSpace([{ ...region(0, 10), pageCount: 11 }])).toThrow(/has only 10240 words/);
  });
});
