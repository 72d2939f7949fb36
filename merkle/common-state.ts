/**
 * The last common device state: what both sides had after the last round that was applied. The same idea as
 * `CommonPages`, for one thing of any length.
 */
import { grown } from './grow.ts';
import { HASH_WORDS } from './hash-list.ts';
import { HASH_BYTES } from './page-hasher.ts';

/** 32-byte hash of any bytes: BLAKE3. */
export type HashBytes = (bytes: Uint8Array) => Uint8Array;

export class CommonState {
  readonly #hashBytes: HashBytes;
  readonly hash = new Uint32Array(HASH_WORDS);
  words = new Uint32Array(0);
  /** Length of the state, 0 when there is none. Zeros follow up to the end of its last word. */
  byteLength = 0;

  constructor(hashBytes: HashBytes) {
    this.#hashBytes = hashBytes;
  }

  get wordLength(): number {
    return Math.ceil(this.byteLength / 4);
  }

  /** After a round was applied: keeps its device state. Both sides call it with the same bytes. */
  keep(state: Uint8Array): void {
    this.words = wordsOf(state, this.words);
    this.byteLength = state.length;
    new Uint8Array(this.hash.buffer).set(this.#hashBytes(state).subarray(0, HASH_BYTES));
  }

  clear(): void {
    this.byteLength = 0;
    this.hash.fill(0);
  }
}

/** Copies bytes of any alignment to the front of `room`, or of something larger, zeros behind them. */
export function wordsOf(bytes: Uint8Array, room: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const needed = Math.ceil(bytes.length / 4);
  const words = room.length >= needed ? room : new Uint32Array(grown(room.length, needed));
  if (needed > 0) words[needed - 1] = 0;
  new Uint8Array(words.buffer).set(bytes);
  return words;
}
