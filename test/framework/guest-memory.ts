/**
 * The oracle for guest memory: compares whole memories byte by byte, without any bitmap, so that what it finds can
 * be held against QEMU's dirty bitmaps.
 */
import { countBits, hasBit, listBits, setBit, uniteInto } from '../../merkle/bitmap.ts';
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

/** The set pages of `bitmap` in which two guests of one machine differ, by name. Both must stand. */
export function differingPagesIn(bitmap: Uint32Array, left: GuestPort, right: GuestPort): string[] {
  const pages = new Uint32Array(countBits(bitmap));
  listBits(bitmap, pages);
  return [...pages].flatMap((bit) => {
    const at = left.blocks.findIndex(
      ({ bitmapBit, pageCount }) => bit >= bitmapBit && bit < bitmapBit + pageCount,
    );
    const [block, other] = [left.blocks[at], right.blocks[at]];
    if (block === undefined || other === undefined) throw new Error(`Bit ${bit} belongs to no block of both`);
    const from = (bit - block.bitmapBit) * pageBytes;
    const pageOf = ({ memory }: GuestBlock): Buffer => Buffer.from(memory, from, pageBytes);
    return pageOf(block).equals(pageOf(other)) ? [] : [pageName(block, bit - block.bitmapBit)];
  });
}

/** A copy of a guest's memory at one moment. */
export class MemoryCopy {
  #blocks: readonly GuestBlock[];
  readonly #copies: readonly Buffer[];
  readonly #bitmapWords: number;

  constructor(port: GuestPort) {
    this.#blocks = port.blocks;
    this.#copies = port.blocks.map((block) => Buffer.from(block.memory.slice(0)));
    this.#bitmapWords = port.dirtyBitmap.length;
  }

  /** The guest's memory is mapped anew, by another agent. */
  follow(port: GuestPort): void {
    this.#blocks = port.blocks;
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

/**
 * Holds the dirty bitmaps of one guest against what really changed. Guarantee: a page that changed since the last
 * `check` and was in no bitmap collected since then is found, whatever changed it.
 */
export class DirtyWatch {
  /** Over all checks. */
  changedPages = 0;
  dirtyPages = 0;
  /** Names of the blocks that ever changed. */
  readonly changedBlocks = new Set<string>();
  readonly #port: GuestPort;
  readonly #copy: MemoryCopy;
  readonly #dirty: Uint32Array;

  /** What is dirty now is collected and forgotten. */
  constructor(port: GuestPort) {
    port.collect();
    this.#port = port;
    this.#copy = new MemoryCopy(port);
    this.#dirty = new Uint32Array(port.dirtyBitmap.length);
  }

  /** Collects and adds to what was collected before; the port's bitmap holds this time's pages only. */
  collect(): number {
    const pages = this.#port.collect();
    uniteInto(this.#dirty, this.#port.dirtyBitmap);
    return pages;
  }

  /** Names of the pages that changed since the last check and that no bitmap since then has. */
  check(): string[] {
    const changed = this.#copy.renew();
    const missing = this.#copy.missing(changed, this.#dirty);
    this.changedPages += countBits(changed);
    for (const { name, bitmapBit, pageCount } of this.#port.blocks) {
      const words = changed.subarray(bitmapBit / 32, Math.ceil((bitmapBit + pageCount) / 32));
      if (words.some((word) => word !== 0)) this.changedBlocks.add(name);
    }
    this.dirtyPages += countBits(this.#dirty);
    this.#dirty.fill(0);
    return missing;
  }
}
