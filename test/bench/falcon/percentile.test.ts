import { expect, it } from 'vitest';
import { percentile } from './percentile.ts';

it('gives the value that a part of all does not exceed', () => {
  const values = Float64Array.from({ length: 1000 }, (_, at) => 1000 - at);
  expect([0.5, 0.99, 0.999, 1].map((part) => percentile(values, part))).toEqual([500, 990, 999, 1000]);
  expect(percentile(Float64Array.of(7), 0.5)).toBe(7);
});
