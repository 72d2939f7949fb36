/**
 * Pages by the numbers that the bitmaps give them: all regions (RAM blocks, disks) count on in one row, with gaps
 * where a region does not fill its last words. Guarantees that a number from outside leads to a page that exists, or
 * to a refusal.
 */
import { bitmapWords, setBit } from './bitmap.ts';
import { MerkleRefusal } from './refusal.ts';

export const PAGE_BYTES = 4096;
export const PAGE_WORDS = PAGE_BYTES / 4;

export interface PageRegion {
  readonly firstPage: number;
  readonly pageCount: number;
  /** Where the region lies, `pageWords` of its space for each page. */
  readonly words: Uint32Array;
}

export class PageSpace {
  readonly pageBytes: number;
  readonly pageWords: number;
  readonly #regions: readonly PageRegion[];
  readonly #existing: Uint32Array;
  #last: PageRegion | undefined;

  /**
   * `regions` ascend and do not overlap. `wordCount`: words of the bitmaps, where they are longer than the last
   * region needs. `pageBytes`: a multiple of 8, below 65,536.
   */
  constructor(regions: readonly PageRegion[], wordCount?: number, pageBytes = PAGE_BYTES) {
    this.pageBytes = pageBytes;
    this.pageWords = pageBytes / 4;
    let end = 0;
    for (const { firstPage, pageCount, words } of regions) {
      if (firstPage < end) throw new RangeError(`A region begins at page ${firstPage}, below ${end}`);
      if (words.length < pageCount * this.pageWords) {
        throw new RangeError(`A region of ${pageCount} pages has only ${words.length} words`);
      }
      end = firstPage + pageCount;
    }
    this.#regions = regions;
    this.#existing = new Uint32Array(Math.max(wordCount ?? 0, bitmapWords(end)));
    for (const { firstPage, pageCount } of regions) {
      for (let page = firstPage; page < firstPage + pageCount; page++) setBit(this.#existing, page);
    }
  }

  /** One more than the highest page number. */
  get pageLimit(): number {
    const last = this.#regions.at(-1);
    return last === undefined ? 0 : last.firstPage + last.pageCount;
  }

  /** Refuses a bitmap of another size, or one that names pages that do not exist. */
  requireBitmap(bitmap: Uint32Array): void {
    if (bitmap.length !== this.#existing.length) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_BITMAP_SIZE',
        `A bitmap of ${bitmap.length} words does not fit this machine's ${this.#existing.length} words: both replicas must run the same machine`,
      );
    }
    for (let word = 0; word < bitmap.length; word++) {
      const strange = (bitmap[word] ?? 0) & ~(this.#existing[word] ?? 0);
      if (strange !== 0) refusePage(32 * word + 31 - Math.clz32(strange & -strange));
    }
  }

  /** The region of a page; its words begin at `(page - firstPage) * pageWords`. Refuses a page that is in none. */
  regionOf(page: number): PageRegion {
    const last = this.#last;
    if (last !== undefined && page >= last.firstPage && page - last.firstPage < last.pageCount) return last;
    for (const region of this.#regions) {
      if (page >= region.firstPage && page - region.firstPage < region.pageCount) {
        this.#last = region;
        return region;
      }
    }
    return refusePage(page);
  }
}

function refusePage(page: number): never {
  throw new MerkleRefusal('GAIA_MERKLE_NO_SUCH_PAGE', `This machine has no page ${page}`);
}
