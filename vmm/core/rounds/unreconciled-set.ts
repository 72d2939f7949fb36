/**
 * Which pages of this guest may differ from its partner's, since which round, and whether the guest is VALID. It
 * lives in memory of the caller's, which may outlive the process; a process that dies between any two stores
 * leaves a set that is larger than it need be, or one that says that it is lost, never one that lacks a page.
 *
 *   words   0 magic   1 words of a bitmap   2 flags   3 term   4 attempt   5, 6 index   7 zero
 *           then two bitmaps: pages written since the last comparison began, and the union under comparison
 *
 * Invariant: while the set is intact, every page in which this guest and one equal to it at `last` differ is in
 * this side's set, in the other's, or not yet collected on one of the two.
 */
import { subtractFrom, uniteInto } from '../../../merkle/bitmap.ts';

const HEADER_WORDS = 8;
/** "GUS1" in little-endian order. */
const MAGIC = 0x31535547;
const FLAG_INTACT = 1;
const FLAG_VALID = 2;
const TWO_32 = 0x1_0000_0000;

const word = { magic: 0, size: 1, flags: 2, term: 3, attempt: 4, indexLow: 5, indexHigh: 6 } as const;

/** Names the one moment at which two guests were found equal. */
export interface RoundName {
  readonly term: number;
  readonly attempt: number;
  readonly index: number;
}

export class UnreconciledSet {
  readonly #memory: Uint32Array;
  /** Written by the guest since the last comparison began; `collectInto` goes here. */
  readonly since: Uint32Array;
  readonly #compared: Uint32Array;

  static wordsFor(bitmapWords: number): number {
    return HEADER_WORDS + 2 * bitmapWords;
  }

  /** Memory that holds no set of this size becomes one that is lost and not VALID. */
  constructor(memory: Uint32Array, bitmapWords: number) {
    this.#memory = memory;
    this.since = memory.subarray(HEADER_WORDS, HEADER_WORDS + bitmapWords);
    this.#compared = memory.subarray(HEADER_WORDS + bitmapWords, HEADER_WORDS + 2 * bitmapWords);
    if (memory[word.magic] === MAGIC && memory[word.size] === bitmapWords) return;
    memory.fill(0);
    memory[word.size] = bitmapWords;
    memory[word.magic] = MAGIC;
  }

  get intact(): boolean {
    return this.#flag(FLAG_INTACT);
  }

  /** Equal to the leader at `last`, and since then nothing but committed inputs. */
  get valid(): boolean {
    return this.#flag(FLAG_VALID);
  }

  set valid(valid: boolean) {
    this.#setFlag(FLAG_VALID, valid);
  }

  get last(): RoundName {
    const memory = this.#memory;
    return {
      term: memory[word.term] ?? 0,
      attempt: memory[word.attempt] ?? 0,
      index: (memory[word.indexHigh] ?? 0) * TWO_32 + (memory[word.indexLow] ?? 0),
    };
  }

  /** Nothing is known any more of what differs. */
  lose(): void {
    this.#setFlag(FLAG_INTACT, false);
  }

  /** target |= the set */
  writeInto(target: Uint32Array): void {
    uniteInto(target, this.since);
    uniteInto(target, this.#compared);
  }

  /** From now on `since` takes what is written after this moment. */
  beginComparison(union: Uint32Array): void {
    uniteInto(this.#compared, union);
    this.since.fill(0);
  }

  /** Nothing came of the comparison: what it was about is unreconciled as before. */
  abandonComparison(): void {
    uniteInto(this.since, this.#compared);
    this.#compared.fill(0);
  }

  /** The memories were equal over `union` at that moment: exactly those pages leave the set. */
  settle(name: RoundName, union: Uint32Array): void {
    this.lose();
    subtractFrom(this.#compared, union);
    this.#name(name);
    this.#setFlag(FLAG_INTACT, true);
  }

  /** As of `name`, the guests differ in the pages of `words` at most, and in what is not collected yet. */
  restart(name: RoundName, words: Uint32Array): void {
    this.lose();
    this.since.set(words);
    this.#compared.fill(0);
    this.#name(name);
    this.#setFlag(FLAG_INTACT, true);
  }

  #name(name: RoundName): void {
    const memory = this.#memory;
    memory[word.term] = name.term;
    memory[word.attempt] = name.attempt;
    memory[word.indexLow] = name.index >>> 0;
    memory[word.indexHigh] = Math.floor(name.index / TWO_32);
  }

  #flag(flag: number): boolean {
    return ((this.#memory[word.flags] ?? 0) & flag) !== 0;
  }

  #setFlag(flag: number, on: boolean): void {
    const flags = this.#memory[word.flags] ?? 0;
    this.#memory[word.flags] = on ? flags | flag : flags & ~flag;
  }
}

export function sameRound(one: RoundName, other: RoundName): boolean {
  return one.term === other.term && one.attempt === other.attempt && one.index === other.index;
}
