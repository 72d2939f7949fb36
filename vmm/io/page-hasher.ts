/** Hashes guest pages where they lie: the tree's injected hash function, over all RAM blocks in a row. */
import { MerkleRefusal } from '../../merkle/refusal.ts';
import { PAGE_WORDS, PageSpace } from '../../merkle/page-space.ts';
import { native } from '../../native/binding.ts';
import type { GuestBlock } from './qemu/port.ts';

const hashBytes = 32;

type Block = Pick<GuestBlock, 'memory' | 'pageCount' | 'bitmapBit'>;

export class PageHasher {
  readonly #blocks: readonly Block[];
  #local = new Uint32Array(1024);

  /**
   * `threads`: how many share out the pages of a call in this worker thread, itself included; as it was before, 1 at
   * first, when it is not said.
   */
  constructor(blocks: readonly Block[], threads?: number) {
    this.#blocks = [...blocks].sort((one, other) => one.bitmapBit - other.bitmapBit);
    if (threads !== undefined) native().blake3Threads(threads);
  }

  /** `pages`: ascending numbers of bits in the bitmaps. Page i's hash goes to out[32 i]. Refuses pages of no block. */
  hashPages(pages: Uint32Array, count: number, out: Uint8Array): void {
    if (this.#local.length < count) this.#local = new Uint32Array(2 * count);
    const local = this.#local;
    let from = 0;
    for (const { memory, bitmapBit, pageCount } of this.#blocks) {
      let to = from;
      for (; to < count; to++) {
        const page = (pages[to] ?? 0) - bitmapBit;
        if (page < 0 || page >= pageCount) break;
        local[to - from] = page;
      }
      if (to > from) {
        native().blake3Pages(memory, local, to - from, out.subarray(from * hashBytes, to * hashBytes));
      }
      from = to;
    }
    if (from === count) return;
    throw new MerkleRefusal(
      'GAIA_MERKLE_NO_SUCH_PAGE',
      `This machine has no page ${pages[from] ?? NaN}, or it was named out of order`,
    );
  }

  hashParents(input: Uint8Array, pieceBytes: number, count: number, out: Uint8Array): void {
    native().blake3Parents(input, pieceBytes, count, out);
  }

  hashParentsAt(
    input: Uint8Array,
    pieceBytes: number,
    which: Uint32Array,
    count: number,
    out: Uint8Array,
  ): void {
    native().blake3ParentsAt(input, pieceBytes, which, count, out);
  }
}

/** The pages of all RAM blocks by their bits in the bitmaps, of `wordCount` words. */
export function pageSpaceOf(blocks: readonly Block[], wordCount: number): PageSpace {
  const regions = [...blocks]
    .sort((one, other) => one.bitmapBit - other.bitmapBit)
    .map(({ memory, pageCount, bitmapBit }) => ({
      firstPage: bitmapBit,
      pageCount,
      words: new Uint32Array(memory, 0, pageCount * PAGE_WORDS),
    }));
  return new PageSpace(regions, wordCount);
}
