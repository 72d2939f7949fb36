import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bitmapWords, countBits, hasBit, listBits, setBit, subtractFrom, uniteInto } from './bitmap.ts';

const PAGES = 500;
const pageSets = fc.uniqueArray(fc.nat(PAGES - 1));

function bitmapOf(pages: readonly number[]): Uint32Array {
  const words = new Uint32Array(bitmapWords(PAGES));
  for (const page of pages) setBit(words, page);
  return words;
}

function pagesOf(words: Uint32Array): number[] {
  const out = new Uint32Array(countBits(words));
  expect(listBits(words, out)).toBe(out.length);
  return [...out];
}

describe('a bitmap', () => {
  it('lists exactly the pages that were set, ascending', () => {
    fc.assert(
      fc.property(pageSets, (pages) => {
        const words = bitmapOf(pages);
        expect(pagesOf(words)).toEqual([...pages].sort((one, other) => one - other));
        expect(pages.every((page) => hasBit(words, page))).toBe(true);
      }),
    );
  });

  it('unites and subtracts like sets', () => {
    fc.assert(
      fc.property(pageSets, pageSets, (one, other) => {
        const union = bitmapOf(one);
        uniteInto(union, bitmapOf(other));
        expect(pagesOf(union)).toEqual([...new Set([...one, ...other])].sort((a, b) => a - b));
        subtractFrom(union, bitmapOf(other));
        expect(pagesOf(union)).toEqual(one.filter((page) => !other.includes(page)).sort((a, b) => a - b));
      }),
    );
  });

  it('refuses to meet a bitmap of another size', () => {
    expect(() => uniteInto(new Uint32Array(4), new Uint32Array(5))).toThrow(/5 words does not fit one of 4/);
    expect(() => subtractFrom(new Uint32Array(4), new Uint32Array(5))).toThrow(/same machine/);
  });
});
