/**
 * Byte rings with one producer and one consumer in shared memory, as native/gaia-layout.h draws them: positions
 * count bytes, run freely and wrap at 2^32; an entry is an 8-byte header (u32 payload bytes, u32 kind) and its
 * payload, padded to 8 bytes, and never wraps. Guarantees: an entry is visible whole or not at all; whatever the
 * other side scribbles, reading stays within the ring.
 */
import { GaiaError } from '../core/errors.ts';

const entryHeaderBytes = 8;
const padKind = 0;

export class RingHarmedError extends GaiaError {
  constructor(position: number, bytes: number) {
    super(
      'GAIA_RING_HARMED',
      `The entry at ring position ${position} claims ${bytes} bytes, which cannot be`,
    );
  }
}

/** Bytes that an entry takes in the ring. */
export function entryBytes(payloadBytes: number): number {
  return entryHeaderBytes + ((payloadBytes + 7) & ~7);
}

export class RingProducer {
  readonly data: Uint8Array;
  readonly #words: Uint32Array;
  readonly #headWords: Uint32Array;
  readonly #headWord: number;
  readonly #readTail: () => number;
  readonly #writeTail: ((tail: number) => void) | undefined;
  #head: number;

  /**
   * `data`: the ring's bytes, a power of two. `readTail`: how far the consumer is known to be. `writeTail`: for
   * a ring whose contents are moved while its consumer stands still.
   */
  constructor(
    data: Uint8Array,
    headWords: Uint32Array,
    headWord: number,
    readTail: () => number,
    writeTail?: (tail: number) => void,
  ) {
    this.data = data;
    this.#words = new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    this.#headWords = headWords;
    this.#headWord = headWord;
    this.#readTail = readTail;
    this.#writeTail = writeTail;
    this.#head = Atomics.load(headWords, headWord);
  }

  get head(): number {
    return this.#head;
  }

  /** Offset in `data` for a payload of up to so many bytes, or -1 when there is no room now. */
  reserve(payloadBytes: number): number {
    const capacity = this.data.length;
    const used = (this.#head - this.#readTail()) >>> 0;
    const place = this.#head & (capacity - 1);
    const toEnd = capacity - place;
    const want = entryBytes(payloadBytes);
    const need = want <= toEnd ? want : toEnd + want;
    if (need > capacity - used) return -1;
    if (want > toEnd) {
      this.#words[place >>> 2] = toEnd - entryHeaderBytes;
      this.#words[(place >>> 2) + 1] = padKind;
      this.#publish(toEnd);
    }
    return (this.#head & (capacity - 1)) + entryHeaderBytes;
  }

  /** Publishes what was written at `reserve`'s offset. */
  commit(kind: number, payloadBytes: number): void {
    const place = (this.#head & (this.data.length - 1)) >>> 2;
    this.#words[place] = payloadBytes;
    this.#words[place + 1] = kind;
    this.#publish(entryBytes(payloadBytes));
  }

  /** Copies one payload in. False: no room now. */
  push(kind: number, payload: Uint8Array): boolean {
    const at = this.reserve(payload.length);
    if (at === -1) return false;
    this.data.set(payload, at);
    this.commit(kind, payload.length);
    return true;
  }

  /** `data` was filled with another ring's contents: this ring continues where that one stands. */
  moveTo(tail: number, head: number): void {
    this.#writeTail?.(tail);
    this.#head = head;
    Atomics.store(this.#headWords, this.#headWord, head);
  }

  #publish(bytes: number): void {
    this.#head = (this.#head + bytes) >>> 0;
    Atomics.store(this.#headWords, this.#headWord, this.#head);
  }
}

export class RingConsumer {
  readonly data: Uint8Array;
  /** The entry that `next` found: where its payload lies in `data`, its length and kind. */
  offset = 0;
  length = 0;
  kind = 0;
  readonly #words: Uint32Array;
  readonly #headWords: Uint32Array;
  readonly #headWord: number;
  readonly #tailWords: Uint32Array;
  readonly #tailWord: number;
  #tail: number;

  constructor(
    data: Uint8Array,
    headWords: Uint32Array,
    headWord: number,
    tailWords: Uint32Array,
    tailWord: number,
  ) {
    this.data = data;
    this.#words = new Uint32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    this.#headWords = headWords;
    this.#headWord = headWord;
    this.#tailWords = tailWords;
    this.#tailWord = tailWord;
    this.#tail = Atomics.load(tailWords, tailWord);
  }

  get hasEntry(): boolean {
    return Atomics.load(this.#headWords, this.#headWord) !== this.#tail;
  }

  /** How many entries lie in the ring; looks at no more than `most`. Throws `RingHarmedError`. */
  count(most: number): number {
    let at = this.#tail;
    let found = 0;
    while (found < most) {
      const length = this.#lengthAt(at);
      if (length === -1) break;
      if (this.#kindAt(at) !== padKind) found++;
      at = (at + entryBytes(length)) >>> 0;
    }
    return found;
  }

  /** Payload bytes of the entry at a position, -1 where the ring ends. */
  #lengthAt(position: number): number {
    const available = (Atomics.load(this.#headWords, this.#headWord) - position) >>> 0;
    if (available === 0) return -1;
    const place = position & (this.data.length - 1);
    const length = this.#words[place >>> 2] ?? 0;
    const bytes = entryBytes(length);
    const { length: capacity } = this.data;
    const fits = bytes <= available && bytes <= capacity - place;
    if (available > capacity || length > this.payloadBytesMax || !fits) throw this.harmed(position, length);
    return length;
  }

  /** Of one entry; padding is never longer. */
  protected get payloadBytesMax(): number {
    return this.data.length - 1;
  }

  /** What is thrown: whose ring it is decides who suffers. */
  protected harmed(position: number, bytes: number): Error {
    return new RingHarmedError(position, bytes);
  }

  #kindAt(position: number): number {
    return this.#words[((position & (this.data.length - 1)) >>> 2) + 1] ?? 0;
  }

  /** Finds the oldest entry. False: the ring is empty. Throws `RingHarmedError`. */
  next(): boolean {
    for (;;) {
      const length = this.#lengthAt(this.#tail);
      if (length === -1) return false;
      this.kind = this.#kindAt(this.#tail);
      this.length = length;
      this.offset = (this.#tail & (this.data.length - 1)) + entryHeaderBytes;
      if (this.kind !== padKind) return true;
      this.consume();
    }
  }

  /** Gives the room of the entry found back to the producer. */
  consume(): void {
    this.#tail = (this.#tail + entryBytes(this.length)) >>> 0;
    Atomics.store(this.#tailWords, this.#tailWord, this.#tail);
  }

  /** A private copy of the payload found. */
  copy(): Uint8Array {
    return this.data.slice(this.offset, this.offset + this.length);
  }
}
