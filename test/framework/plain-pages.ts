/** Pages that are single numbers, for tests of the tree. SHA-256 stands in for BLAKE3, which only the addon has. */
import { createHash } from 'node:crypto';
import { bitmapWords, setBit } from '../../merkle/bitmap.ts';
import type { PageHasher } from '../../merkle/page-hasher.ts';

/** Pages that are not in the map hold 0. */
export type PlainContents = ReadonlyMap<number, number>;

export class PlainHasher implements PageHasher {
  hashedPages = 0;
  hashedPieces = 0;
  readonly #contents: PlainContents;

  constructor(contents: PlainContents = new Map()) {
    this.#contents = contents;
  }

  hashPages(pages: Uint32Array, count: number, out: Uint8Array): void {
    this.hashedPages += count;
    for (let at = 0; at < count; at++) {
      const page = pages[at] ?? 0;
      out.set(sha256(`page ${page} ${this.#contents.get(page) ?? 0}`), 32 * at);
    }
  }

  hashParents(input: Uint8Array, pieceBytes: number, count: number, out: Uint8Array): void {
    for (let at = 0; at < count; at++) this.#hashPiece(input, pieceBytes, at, out);
  }

  hashParentsAt(
    input: Uint8Array,
    pieceBytes: number,
    which: Uint32Array,
    count: number,
    out: Uint8Array,
  ): void {
    for (let at = 0; at < count; at++) this.#hashPiece(input, pieceBytes, which[at] ?? 0, out);
  }

  #hashPiece(input: Uint8Array, pieceBytes: number, piece: number, out: Uint8Array): void {
    this.hashedPieces++;
    out.set(sha256(input.subarray(piece * pieceBytes, (piece + 1) * pieceBytes)), 32 * piece);
  }
}

function sha256(content: string | Uint8Array): Uint8Array {
  return createHash('sha256').update(content).digest();
}

/** A bitmap over `size` pages in which `pages` are set. */
export function bitmapOf(pages: Iterable<number>, size: number): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(bitmapWords(size));
  for (const page of pages) setBit(words, page);
  return words;
}

export const ascending = (one: number, other: number): number => one - other;
