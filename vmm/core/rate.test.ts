import { expect, it } from 'vitest';
import { Rate } from './rate.ts';

it('tells how often it was counted in the second before', () => {
  const rate = new Rate();
  rate.perSecond(10_000_000);
  for (let at = 0; at < 50; at++) rate.count(10_000_000 + at * 20_000);
  expect(rate.perSecond(11_000_000)).toBe(50);
  expect(rate.perSecond(11_999_999)).toBe(50);
});

it('falls to nothing when nothing is counted any more', () => {
  const rate = new Rate();
  rate.perSecond(10_000_000);
  rate.count(10_000_001);
  expect(rate.perSecond(11_000_000)).toBe(1);
  expect(rate.perSecond(13_000_000)).toBe(0);
});
