/** A 32-byte hash for simulated memory: quick, and good enough that two contents of a few bytes never meet. */
import type { PageHasher } from '../../merkle/page-hasher.ts';

const HASH_BYTES = 32;

/** Hash of `bytes[at .. at + length - 1]` to `out[outAt ..]`. */
function hashInto(bytes: Uint8Array, at: number, length: number, out: Uint8Array, outAt: number): void {
  let one = 0x811c9dc5 ^ length;
  let two = 0x9747b28c;
  for (let position = at; position < at + length; position++) {
    one = Math.imul(one ^ (bytes[position] ?? 0), 0x01000193);
    two = Math.imul(two ^ one ^ (two >>> 13), 0x5bd1e995);
  }
  const view = new DataView(out.buffer, out.byteOffset);
  for (let word = 0; word < HASH_BYTES / 4; word++) {
    one = Math.imul(one ^ (two >>> 15) ^ word, 0x85ebca6b);
    two = Math.imul(two ^ (one >>> 13), 0xc2b2ae35);
    view.setUint32(outAt + 4 * word, one ^ two, true);
  }
}

export function digestOf(...parts: readonly Uint8Array[]): number {
  const out = new Uint8Array(HASH_BYTES);
  let digest = 0;
  for (const part of parts) {
    hashInto(part, 0, part.length, out, 0);
    digest = Math.imul(digest ^ new DataView(out.buffer).getInt32(0, true), 0x9e3779b1) ^ (digest >>> 13);
  }
  return digest | 0;
}

export function hasherOf(memory: Uint8Array, pageBytes: number): PageHasher {
  return {
    hashPages(pages, count, out) {
      for (let at = 0; at < count; at++)
        hashInto(memory, (pages[at] ?? 0) * pageBytes, pageBytes, out, HASH_BYTES * at);
    },
    hashParents(input, pieceBytes, count, out) {
      for (let at = 0; at < count; at++) hashInto(input, at * pieceBytes, pieceBytes, out, HASH_BYTES * at);
    },
    hashParentsAt(input, pieceBytes, which, count, out) {
      for (let at = 0; at < count; at++) {
        const piece = which[at] ?? 0;
        hashInto(input, piece * pieceBytes, pieceBytes, out, HASH_BYTES * piece);
      }
    },
  };
}
