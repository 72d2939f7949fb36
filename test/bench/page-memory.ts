/** Guest-like memory for the merkle bench: real pages of random bytes, mapped as a guest's would be. */
import { closeSync } from 'node:fs';
import { bitmapWords, setBit } from '../../merkle/bitmap.ts';
import { native } from '../../native/binding.ts';

/** Pages that exist. */
const realPages = 65_536;
/** The same pages again and again, as so many blocks: numbers up to that are pages for the tree. */
const blockCount = 16;
const pageLimit = realPages * blockCount;

/** Pseudo-random numbers below 1, the same in each run. */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

export class PageMemory {
  readonly memory: ArrayBuffer;
  readonly words: Uint32Array;

  constructor(seed: number) {
    const fd = native().memoryCreate('gaia-bench', realPages * 4096);
    this.memory = native().memoryMap(fd, 0, realPages * 4096, true);
    closeSync(fd);
    this.words = new Uint32Array(this.memory);
    for (let at = 0, value = seed; at < this.words.length; at++) {
      value = (Math.imul(value, 1_664_525) + 1_013_904_223) | 0;
      this.words[at] = value ^ (value >>> 15);
    }
  }

  get blocks() {
    return Array.from({ length: blockCount }, (_, index) => ({
      memory: this.memory,
      pageCount: realPages,
      bitmapBit: index * realPages,
    }));
  }

  /** Changes each of these pages in one word; the second time changes it back. Numbers of real pages. */
  flip(pages: readonly number[]): void {
    for (const page of pages) this.words[page * 1024 + 77] = ~(this.words[page * 1024 + 77] ?? 0);
  }

  end(): void {
    native().memoryUnmap(this.memory);
  }
}

/** `count` pages in ascending order, one in each of as many stretches of the memory, which end before its last page. */
export function scatteredPages(count: number): Uint32Array {
  const span = count < realPages ? realPages - 1 : pageLimit;
  const random = generator(count);
  const start = (stretch: number): number => Math.floor((stretch * span) / count);
  return Uint32Array.from(
    { length: count },
    (_, at) => start(at) + Math.floor(random() * (start(at + 1) - start(at))),
  );
}

/** Which of the pages that exist lies behind a number. */
export function realPageOf(page: number): number {
  return page % realPages;
}

export function bitmapOf(pages: Iterable<number>): Uint32Array {
  const words = new Uint32Array(bitmapWords(pageLimit));
  for (const page of pages) setBit(words, page);
  return words;
}

/** A share of what lies behind `pages`, each once, drawn by lot: numbers of real pages. */
export function drawn(pages: Uint32Array, share: number, seed: number): number[] {
  const all = [...new Set(Array.from(pages, realPageOf))];
  const random = generator(seed);
  const count = Math.max(1, Math.round(all.length * share));
  for (let at = 0; at < count; at++) {
    const other = at + Math.floor(random() * (all.length - at));
    [all[at], all[other]] = [all[other] ?? 0, all[at] ?? 0];
  }
  return all.slice(0, count);
}
