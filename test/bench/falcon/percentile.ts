/** The value that so large a `part` of all values does not exceed. Sorts them in place. */
export function percentile(values: Float64Array, part: number): number {
  values.sort();
  return values[Math.min(values.length - 1, Math.ceil(values.length * part) - 1)] ?? NaN;
}
