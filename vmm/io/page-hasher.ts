/** Hashes guest pages where they lie: the tree's injected hash function, over all RAM blocks in a row. */
import { native } from '../../native/binding.ts';
import type { GuestBlock } from './qemu/port.ts';

const hashBytes = 32;

export class PageHasher {
  readonly #blocks: readonly GuestBlock[];
  #local = new Uint32Array(1024);

  constructor(blocks: readonly GuestBlock[]) {
    this.#blocks = blocks;
  }

  /** `pages`: ascending numbers of bits in the bitmaps. Page i's hash goes to out[32 i]. */
  hashPages(pages: Uint32Array, count: number, out: Uint8Array): void {
    if (this.#local.length < count) this.#local = new Uint32Array(2 * count);
    const local = this.#local;
    let from = 0;
    for (const block of this.#blocks) {
      let to = from;
      const end = block.bitmapBit + block.pageCount;
      while (to < count && (pages[to] ?? 0) < end) {
        local[to - from] = (pages[to] ?? 0) - block.bitmapBit;
        to++;
      }
      if (to > from) {
        native().blake3Pages(block.memory, local, to - from, out.subarray(from * hashBytes, to * hashBytes));
      }
      from = to;
    }
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
