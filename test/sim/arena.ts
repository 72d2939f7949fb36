/**
 * Copies of bytes that nobody writes into any more, cut from large pieces: a simulated second makes thousands, and
 * a buffer of its own for each would cost more than everything else.
 */
const PIECE_BYTES = 1 << 18;
/** Below this, copying byte by byte beats making a view. */
const SMALL_BYTES = 128;

export class Arena {
  #piece = new Uint8Array(0);
  #used = 0;

  copy(source: Uint8Array, from: number, length: number): Uint8Array {
    if (this.#used + length > this.#piece.length) {
      this.#piece = new Uint8Array(Math.max(PIECE_BYTES, length));
      this.#used = 0;
    }
    const at = this.#used;
    // Whole words, so that the log can copy it by words.
    this.#used = (at + length + 7) & ~7;
    const copy = this.#piece.subarray(at, at + length);
    if (length > SMALL_BYTES) copy.set(source.subarray(from, from + length));
    else for (let position = 0; position < length; position++) copy[position] = source[from + position] ?? 0;
    return copy;
  }
}
