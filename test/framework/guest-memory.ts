/**
 * The oracle for guest memory: compares whole memories byte by byte, without any bitmap, so that what it finds can
 * be held against QEMU's dirty bitmaps.
 */
import { hasBit, setBit } from '../../merkle/bitmap.ts';
import { pageBytes } from '../../vmm/io/qemu/layout.ts';
import type { GuestBlock, GuestPort } from '../../vmm/io/qemu/port.ts';

const chunkBytes = 64 * pageBytes;

/** A page as people find it again: block and offset. */
function pageName(block: GuestBlock, page: number): string {
  return `${block.name}+0x${(page * pageBytes).toString(16)}`;
}

/** Calls `found` for every page in which the two differ, ascending. */
function comparePages(left: Buffer, right: Buffer, found: (page: number) => void): void {
  for (let chunk = 0; chunk < left.length; chunk += chunkBytes) {
    const end = Math.min(chunk + chunkBytes, left.length);
    if (left.compare(right, chunk, end, chunk, end) === 0) continue;
    for (let at = chunk; at < end; at += pageBytes) {
      if (left.compare(right, at, at + pageBytes, at, at + pageBytes) !== 0) found(at / pageBytes);
    }
  }
}

/** The pages in which two guests of one machine differ, by name. Both must stand. */
export function differingPages(left: GuestPort, right: GuestPort): string[] {
  const names: string[] = [];
  for (const [index, block] of left.blocks.entries()) {
    const other = right.blocks[index];
    if (other?.name !== block.name || other.bytes !== block.bytes)
      throw new Error(`Block ${block.name} of one guest is block ${other?.name ?? 'none'} of the other`);
    comparePages(Buffer.from(block.memory), Buffer.from(other.memory), (page) => {
      names.push(pageName(block, page));
    });
  }
  return names;
}

/** A copy of a guest's memory at one moment. */
export class MemoryCopy {
  readonly #blocks: readonly GuestBlock[];
  readonly #copies: readonly Buffer[];
  readonly #bitmapWords: number;

  constructor(port: GuestPort) {
    this.#blocks = port.blocks;
    this.#copies = port.blocks.map((block) => Buffer.from(block.memory.slice(0)));
    this.#bitmapWords = port.dirtyBitmap.length;
  }

  /** The pages that changed since the copy was made or last renewed, as a bitmap; the copy is renewed. */
  renew(): Uint32Array {
    const changed = new Uint32Array(this.#bitmapWords);
    for (const [index, block] of this.#blocks.entries()) {
      const copy = this.#copies[index];
      if (copy === undefined) continue;
      const memory = Buffer.from(block.memory);
      comparePages(copy, memory, (page) => {
        setBit(changed, block.bitmapBit + page);
        memory.copy(copy, page * pageBytes, page * pageBytes, (page + 1) * pageBytes);
      });
    }
    return changed;
  }

  /** Names of the pages in `changed` that are not in `dirty`. */
  missing(changed: Uint32Array, dirty: Uint32Array): string[] {
    return this.#blocks.flatMap((block) => {
      const pages = Array.from({ length: block.pageCount }, (_, page) => page);
      return pages
        .filter((page) => hasBit(changed, block.bitmapBit + page) && !hasBit(dirty, block.bitmapBit + page))
        .map((page) => pageName(block, page));
    });
  }
}
