/** What many runs of the same say in a few numbers. Machines are shared: medians, with the range beside them. */

export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/**
 * The value below which `percent` of 100 of the values lie, between two neighbours by their distance. Throws
 * RangeError for no values, or for a percentage that is none.
 */
export function percentile(values: readonly number[], percent: number): number {
  if (!(percent >= 0 && percent <= 100)) throw new RangeError(`${percent} is no percentage: give 0 to 100`);
  const sorted = [...values].sort((left, right) => left - right);
  const place = (percent / 100) * (sorted.length - 1);
  const below = sorted[Math.floor(place)];
  const above = sorted[Math.ceil(place)];
  if (below === undefined || above === undefined) throw new RangeError('No values, so no percentile');
  // Rounding must not carry it past its neighbour.
  return Math.min(above, below + (above - below) * (place - Math.floor(place)));
}

export function median(values: readonly number[]): number {
  return percentile(values, 50);
}

/** Throws RangeError for no values. */
export function summarize(values: readonly number[]): Summary {
  return {
    count: values.length,
    min: percentile(values, 0),
    p50: median(values),
    p99: percentile(values, 99),
    max: percentile(values, 100),
  };
}
