/** Bytes that tell where they belong: what arrives is compared with what must have been sent. */

/** Numbers its payload in every word, so that no part of one fits another's place. */
export function fillPattern(bytes: Uint8Array, stream: number, index: number): void {
  let state = (Math.imul(stream + 1, 0x9e37_79b1) ^ Math.imul(index + 1, 0x85eb_ca6b)) >>> 0 || 1;
  for (let at = 0; at < bytes.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[at] = state & 0xff;
  }
}

export function pattern(bytes: number, stream: number, index: number): Uint8Array {
  const filled = new Uint8Array(bytes);
  fillPattern(filled, stream, index);
  return filled;
}

export function isPattern(bytes: Uint8Array, stream: number, index: number): boolean {
  return Buffer.compare(bytes, pattern(bytes.length, stream, index)) === 0;
}

/** Sizes from `least` to `most` in a fixed order that mixes small and large. */
export function mixedSize(index: number, least: number, most: number): number {
  const spread = most - least + 1;
  const small = index % 3 !== 0;
  return least + ((Math.imul(index + 1, 0x9e37_79b1) >>> 0) % (small ? Math.min(spread, 200) : spread));
}
