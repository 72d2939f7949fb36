/** How the tree gets its hashes: injected, so that production hashes guest memory in native batches. */

export const HASH_BYTES = 32;

export interface PageHasher {
  /** Hash of page `pages[i]` to `out[32 * i .. 32 * i + 31]`, for the first `count` of `pages`. */
  hashPages(pages: Uint32Array, count: number, out: Uint8Array): void;
  /** Hash of each of `count` pieces of `pieceBytes` (at most 1,024) that lie in a row in `input`. */
  hashParents(input: Uint8Array, pieceBytes: number, count: number, out: Uint8Array): void;
  /**
   * The same for some pieces only: the hash of piece `n = which[i]`, which begins at byte `n * pieceBytes` of
   * `input`, to `out[32 * n .. 32 * n + 31]`, for the first `count` of `which`.
   */
  hashParentsAt(
    input: Uint8Array,
    pieceBytes: number,
    which: Uint32Array,
    count: number,
    out: Uint8Array,
  ): void;
}
