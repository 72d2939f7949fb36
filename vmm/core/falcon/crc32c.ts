/**
 * CRC-32C (Castagnoli, reflected, RFC 3720) over a range of bytes, as the core wants it injected.
 *
 * Results are signed 32-bit integers: V8 keeps those unboxed, while an unsigned one above 2^31 would be
 * an allocation on each hand-over.
 */

/** Continues from `seed` (0 to begin) over `bytes[offset .. offset + length - 1]`. */
export type Crc32c = (bytes: Uint8Array, offset: number, length: number, seed: number) => number;

const POLYNOMIAL = 0x82f63b78;
const SLICES = 8;
const tables = buildTables();

function buildTables(): Int32Array {
  const built = new Int32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
    built[byte] = value;
  }
  for (let slice = 1; slice < SLICES; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const shorter = built[(slice - 1) * 256 + byte] ?? 0;
      built[slice * 256 + byte] = (shorter >>> 8) ^ (built[shorter & 0xff] ?? 0);
    }
  }
  return built;
}

/** Eight bytes a step by tables: needs no addon, allocates nothing, and is the quicker one below some 150 bytes. */
export function crc32cByTables(bytes: Uint8Array, offset: number, length: number, seed: number): number {
  let crc = ~seed;
  let at = offset;
  const end = offset + length;
  for (; at + 8 <= end; at += 8) {
    crc =
      (tables[1792 + ((crc ^ (bytes[at] ?? 0)) & 0xff)] ?? 0) ^
      (tables[1536 + (((crc >>> 8) ^ (bytes[at + 1] ?? 0)) & 0xff)] ?? 0) ^
      (tables[1280 + (((crc >>> 16) ^ (bytes[at + 2] ?? 0)) & 0xff)] ?? 0) ^
      (tables[1024 + ((crc >>> 24) ^ (bytes[at + 3] ?? 0))] ?? 0) ^
      (tables[768 + (bytes[at + 4] ?? 0)] ?? 0) ^
      (tables[512 + (bytes[at + 5] ?? 0)] ?? 0) ^
      (tables[256 + (bytes[at + 6] ?? 0)] ?? 0) ^
      (tables[bytes[at + 7] ?? 0] ?? 0);
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ (tables[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0);
  return ~crc;
}

/** Short ranges by tables, long ones by `native`, the addon's, whose call costs as much as some 150 bytes by tables. */
export function crc32cWith(native: Crc32c, tableBytesMax = 160): Crc32c {
  return (bytes, offset, length, seed) =>
    length <= tableBytesMax
      ? crc32cByTables(bytes, offset, length, seed)
      : native(bytes, offset, length, seed);
}
