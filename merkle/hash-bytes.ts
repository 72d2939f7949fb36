/**
 * Hash of bytes of any length by a hasher of pieces: the pieces' hashes are hashed again until one is left. The length
 * is hashed with it, so that zeros at the end count.
 */
import type { HashBytes } from './common-state.ts';
import { HASH_BYTES, type PageHasher } from './page-hasher.ts';

const PIECE_BYTES = 1024;

export function hashBytesWith(hasher: PageHasher): HashBytes {
  return (bytes) => {
    let input = new Uint8Array(Math.ceil((8 + bytes.length) / PIECE_BYTES) * PIECE_BYTES);
    new DataView(input.buffer).setFloat64(0, bytes.length, true);
    input.set(bytes, 8);
    for (;;) {
      const pieces = input.length / PIECE_BYTES;
      const hashes = new Uint8Array(
        pieces === 1 ? HASH_BYTES : Math.ceil((pieces * HASH_BYTES) / PIECE_BYTES) * PIECE_BYTES,
      );
      hasher.hashParents(input, PIECE_BYTES, pieces, hashes);
      if (pieces === 1) return hashes;
      input = hashes;
    }
  };
}
