/** Buffers that live from round to round and grow with the largest one. */

/** At least `needed`, and at least half as much again as before: the buffers of a run settle soon. */
export function grown(had: number, needed: number): number {
  return Math.max(needed, Math.ceil(had * 1.5));
}

/** The array itself where it has room for `count` elements, else a larger one with the same content. */
export function withRoom(array: Uint32Array<ArrayBuffer>, count: number): Uint32Array<ArrayBuffer> {
  if (array.length >= count) return array;
  const larger = new Uint32Array(grown(array.length, count));
  larger.set(array);
  return larger;
}
