/**
 * Each page's hash when it was last looked at: tells a page that has changed from one that was only written, or marked
 * as if it had been. Guarantee: a page is never said to be unchanged unless its hash is the one that was noted last.
 */
import { hasBit, setBit } from '../../merkle/bitmap.ts';
import { HASH_BYTES } from '../../merkle/page-hasher.ts';

const hashWords = HASH_BYTES / 4;

export class KnownHashes {
  readonly #known: Uint32Array;
  readonly #words: Uint32Array;

  /** For bitmaps of so many words. */
  constructor(bitmapWords: number) {
    this.#known = new Uint32Array(bitmapWords);
    this.#words = new Uint32Array(32 * bitmapWords * hashWords);
  }

  /** Notes the page's hash, which begins at `hashes[at]`, in words. True: it is another one than before, or the first. */
  note(page: number, hashes: Uint32Array, at: number): boolean {
    const from = page * hashWords;
    let changed = !hasBit(this.#known, page);
    for (let word = 0; word < hashWords && !changed; word++)
      changed = this.#words[from + word] !== hashes[at + word];
    if (!changed) return false;
    setBit(this.#known, page);
    this.#words.set(hashes.subarray(at, at + hashWords), from);
    return true;
  }

  forget(): void {
    this.#known.fill(0);
  }
}
