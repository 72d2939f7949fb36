import { expect, it } from 'vitest';
import { Backoff } from './backoff.ts';

const times = { firstMs: 100, maxMs: 1000, soundAfterMs: 5000 };

it('waits twice as long each time, up to the maximum', () => {
  const backoff = new Backoff(times);
  const waits = Array.from({ length: 6 }, (_, turn) => {
    const wait = backoff.waitMs(turn);
    backoff.started(turn);
    return wait;
  });
  expect(waits).toEqual([100, 200, 400, 800, 1000, 1000]);
});

it('begins anew with what has run for long enough, and not before', () => {
  const backoff = new Backoff(times);
  backoff.started(0);
  backoff.started(10);
  expect(backoff.waitMs(5009)).toBe(400);
  backoff.started(6000);
  expect(backoff.waitMs(11_000)).toBe(100);
  expect(backoff.attempts).toBe(0);
});
