/**
 * The last common version of pages that were shipped: what the leader had in them in the last round that was applied,
 * and the backup therefore too. A page that diverges again is shipped as its difference from that.
 *
 * Both sides put the same pages in the same order after the same rounds, and only that decides what is dropped when it
 * is full: the page that was shipped longest ago. So both hold the same pages without a word about it. Where one of
 * them does not, the hashes that deltas name tell; when one side begins anew, the other one clears its pages, too.
 */
import { HASH_WORDS } from './hash-list.ts';
import { PAGE_BYTES, type PageSpace } from './page-space.ts';
import type { MerkleTree } from './tree.ts';

const NONE = -1;

export class CommonPages {
  readonly capacity: number;
  /** Slot s holds its page at word `pageWords` s and the page's hash at word 8 s of `hashes`. */
  readonly words: Uint32Array;
  readonly hashes: Uint32Array;
  /** By page number: its slot, or NONE. */
  readonly #slots: Int32Array;
  readonly #pages: Uint32Array;
  readonly #pageWords: number;
  /** A ring through all slots in use, from the newest to the oldest. */
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  #newest = NONE;
  #oldest = NONE;
  /** Slots never used or forgotten, linked by `#older`. */
  #free = NONE;
  #count = 0;

  /** `memoryBytes`: for the pages; 0 keeps none. Memory is taken from the system as it fills. */
  constructor(memoryBytes: number, pageLimit: number, pageBytes = PAGE_BYTES) {
    this.#pageWords = pageBytes / 4;
    this.capacity = Math.min(Math.floor(memoryBytes / pageBytes), pageLimit);
    this.words = new Uint32Array(this.capacity * this.#pageWords);
    this.hashes = new Uint32Array(this.capacity * HASH_WORDS);
    this.#slots = new Int32Array(pageLimit);
    this.#pages = new Uint32Array(this.capacity);
    this.#older = new Int32Array(this.capacity);
    this.#newer = new Int32Array(this.capacity);
    this.clear();
  }

  /** Pages held. */
  get count(): number {
    return this.#count;
  }

  clear(): void {
    this.#slots.fill(NONE);
    for (let slot = 0; slot < this.capacity; slot++) this.#older[slot] = slot + 1;
    if (this.capacity > 0) this.#older[this.capacity - 1] = NONE;
    this.#free = this.capacity > 0 ? 0 : NONE;
    [this.#newest, this.#oldest, this.#count] = [NONE, NONE, 0];
  }

  /** The slot of a page, or -1. Looking changes nothing. */
  slotOf(page: number): number {
    return this.#slots[page] ?? NONE;
  }

  /**
   * After a round was applied: keeps the first `count` of `pages`, which were shipped in it, as they are now. `tree`
   * holds their hashes. Both sides call it with the same pages, while their guests stand.
   */
  keep(space: PageSpace, tree: MerkleTree, pages: Uint32Array, count: number): void {
    if (this.capacity === 0) return;
    const hashes = tree.levelWords(0);
    const pageWords = this.#pageWords;
    for (let at = 0; at < count; at++) {
      const page = pages[at] ?? 0;
      const { firstPage, words } = space.regionOf(page);
      const leaf = tree.leafOf(page);
      if (leaf < 0) throw new RangeError(`Page ${page} was shipped, but the tree does not have it`);
      const slot = this.#slotFor(page);
      copyWords(words, (page - firstPage) * pageWords, this.words, slot * pageWords, pageWords);
      copyWords(hashes, leaf * HASH_WORDS, this.hashes, slot * HASH_WORDS, HASH_WORDS);
    }
  }

  /** The other side does not have it: so it is common no more. */
  forget(page: number): void {
    const slot = this.slotOf(page);
    if (slot === NONE) return;
    this.#unlink(slot);
    this.#slots[page] = NONE;
    this.#older[slot] = this.#free;
    this.#free = slot;
    this.#count--;
  }

  /** The page's slot, now the newest; of a new page a free one, or the oldest page's. */
  #slotFor(page: number): number {
    let slot = this.slotOf(page);
    if (slot !== NONE) {
      this.#unlink(slot);
    } else {
      if (this.#free === NONE) this.forget(this.#pages[this.#oldest] ?? 0);
      slot = this.#free;
      this.#free = this.#older[slot] ?? NONE;
      this.#slots[page] = slot;
      this.#pages[slot] = page;
      this.#count++;
    }
    this.#older[slot] = this.#newest;
    this.#newer[slot] = NONE;
    if (this.#newest !== NONE) this.#newer[this.#newest] = slot;
    else this.#oldest = slot;
    this.#newest = slot;
    return slot;
  }

  #unlink(slot: number): void {
    const older = this.#older[slot] ?? NONE;
    const newer = this.#newer[slot] ?? NONE;
    if (older !== NONE) this.#newer[older] = newer;
    else this.#oldest = newer;
    if (newer !== NONE) this.#older[newer] = older;
    else this.#newest = older;
  }
}

/** Copies a multiple of four words. Without a view of either array: nothing is allocated. */
export function copyWords(
  source: Uint32Array,
  sourceAt: number,
  target: Uint32Array,
  targetAt: number,
  count: number,
): void {
  for (let word = 0; word < count; word += 4) {
    target[targetAt + word] = source[sourceAt + word] ?? 0;
    target[targetAt + word + 1] = source[sourceAt + word + 1] ?? 0;
    target[targetAt + word + 2] = source[sourceAt + word + 2] ?? 0;
    target[targetAt + word + 3] = source[sourceAt + word + 3] ?? 0;
  }
}
