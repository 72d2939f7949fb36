/**
 * What the leader puts into the backup's staging area for one attempt of one round. All numbers little-endian.
 *
 *     0  u32  magic
 *     4  u32  checksum over bytes 8 to the end of it all
 *     8  u64  bytes in all
 *    16  u64  term
 *    24  u64  round
 *    32  u32  attempt
 *    36  u32  pages
 *    40  u32  kind of the device state: NONE, DELTA or WHOLE
 *    44  u32  bytes of the device state itself
 *    48  u32  bytes of its payload
 *    52  u32  zero
 *    56       the pages, ascending:   u32 page | u16 bytes of payload | u16 kind | payload, filled up to 4 bytes
 *             the device state:       payload, filled up to 4 bytes
 *
 * Payload by kind:
 *   ZERO      nothing: a page of zeros
 *   REPEATED  the 8 bytes that fill the page
 *   SPARSE    a delta from zeros
 *   DELTA     first 16 bytes of the hash of the base, then the delta from it
 *   WHOLE     the bytes themselves
 */
import { HASH_WORDS } from './hash-list.ts';
import { PAGE_BYTES } from './page-space.ts';

export const STAGING_MAGIC = 0x6761_7374;
export const STAGING_HEADER_BYTES = 56;
export const ENTRY_HEADER_BYTES = 8;
/** Of a base's hash, as its name. */
export const BASE_NAME_BYTES = 16;

export const headerAt = {
  magic: 0,
  checksum: 4,
  bytes: 8,
  term: 16,
  round: 24,
  attempt: 32,
  pageCount: 36,
  stateKind: 40,
  stateBytes: 44,
  statePayloadBytes: 48,
  reserved: 52,
} as const;

/** How a page or the device state is shipped. */
export const shippedAs = { none: 0, zero: 1, repeated: 2, sparse: 3, delta: 4, whole: 5 } as const;
export const SHIPPED_KINDS = 6;

/** Continues from `seed` (0 to begin) over `bytes[offset .. offset + length - 1]`: CRC-32C, as the log's records have. */
export type Checksum = (bytes: Uint8Array, offset: number, length: number, seed: number) => number;

/** Which staging it is: another one's is not applied. */
export interface StagingNumbers {
  readonly term: number;
  readonly round: number;
  readonly attempt: number;
}

/** No staging of so many pages and so much device state takes more. */
export function stagingBytesMax(pageCount: number, stateBytes: number, pageBytes = PAGE_BYTES): number {
  return STAGING_HEADER_BYTES + pageCount * (ENTRY_HEADER_BYTES + pageBytes) + filledUp(stateBytes);
}

/** The next multiple of four. */
export function filledUp(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

const TWO_32 = 2 ** 32;

export function readUint64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

export function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

/** Names the base by the hash at word `hashAt`. */
export function writeBaseName(hashes: Uint32Array, hashAt: number, view: DataView, at: number): void {
  for (let word = 0; word < BASE_NAME_BYTES / 4; word++) {
    view.setUint32(at + 4 * word, hashes[hashAt + word] ?? 0, true);
  }
}

export function namesBase(hashes: Uint32Array, hashAt: number, view: DataView, at: number): boolean {
  for (let word = 0; word < BASE_NAME_BYTES / 4; word++) {
    if (view.getUint32(at + 4 * word, true) !== hashes[hashAt + word]) return false;
  }
  return BASE_NAME_BYTES <= 4 * HASH_WORDS;
}
