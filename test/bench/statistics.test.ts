import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { median, percentile, summarize } from './statistics.ts';

const numbers = fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 1 });

describe('statistics', () => {
  it('the median of an even number of values lies halfway between the two in the middle', () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([7])).toBe(7);
  });

  it('a high percentile lies between its neighbours', () => {
    expect(percentile([0, 10], 99)).toBeCloseTo(9.9);
    expect(percentile([1, 2, 3, 4, 5], 99)).toBeCloseTo(4.96);
  });

  it('the order of the values makes no difference, and they stay as they are', () => {
    const values = Object.freeze([3, 1, 2]);
    expect(summarize(values)).toEqual(summarize([1, 2, 3]));
  });

  it('a summary is ordered and lies within its values', () => {
    fc.assert(
      fc.property(numbers, (values) => {
        const { count, min, p50, p99, max } = summarize(values);
        expect(count).toBe(values.length);
        expect(min === Math.min(...values) && max === Math.max(...values)).toBe(true);
        expect(min <= p50 && p50 <= p99 && p99 <= max).toBe(true);
      }),
    );
  });

  it('no values and no percentage are refused', () => {
    expect(() => median([])).toThrow(RangeError);
    expect(() => percentile([1], 101)).toThrow('101 is no percentage');
    expect(() => percentile([1], Number.NaN)).toThrow(RangeError);
  });
});
