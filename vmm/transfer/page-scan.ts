/**
 * Runs of pages to send, found a bounded amount at a time: all that are not zero, or those that a bitmap names.
 * Page numbers are within one memory.
 */
import { hasBit } from '../../merkle/bitmap.ts';
import { chunkPagesMax, pageIsZero, wordsOf } from './transferred-pages.ts';
import { pageBytes } from '../io/qemu/layout.ts';

/** So many pages are looked at before the caller may do something else. */
const scannedPagesMax = 4096;

export interface PageRun {
  readonly first: number;
  readonly count: number;
}

/** Undefined where nothing was found for a while. */
export function* pagesNotZero(memory: Uint8Array): Generator<PageRun | undefined> {
  const words = wordsOf(memory);
  yield* runs(memory.byteLength / pageBytes, (page) => !pageIsZero(words, page));
}

/** Bit `firstBit` of the bitmap is the memory's first page. */
export function* pagesInBitmap(
  bitmap: Uint32Array,
  firstBit: number,
  pageCount: number,
): Generator<PageRun | undefined> {
  yield* runs(pageCount, (page) => hasBit(bitmap, firstBit + page));
}

function* runs(pageCount: number, wanted: (page: number) => boolean): Generator<PageRun | undefined> {
  let page = 0;
  let looked = 0;
  while (page < pageCount) {
    const first = page;
    while (page < pageCount && page - first < chunkPagesMax && wanted(page)) page++;
    if (page > first) {
      yield { first, count: page - first };
      continue;
    }
    page++;
    if (++looked % scannedPagesMax === 0) yield undefined;
  }
}
