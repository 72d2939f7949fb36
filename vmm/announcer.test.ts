import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Announcer } from './announcer.ts';

let sentMs: number[];
let announcer: Announcer;

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  sentMs = [];
  announcer = new Announcer('52:54:00:12:34:56', () => sentMs.push(Date.now()));
});

afterEach(() => {
  vi.useRealTimers();
});

it('announces soon, then ever more rarely, and never stops while its replica serves', () => {
  announcer.begin();
  vi.advanceTimersByTime(100_000);
  expect(sentMs).toEqual([100, 400, 1300, 4000, 12_100, 36_400, 66_400, 96_400]);
});

it('is silent from its end on, and begins anew at the next takeover', () => {
  announcer.begin();
  vi.advanceTimersByTime(150);
  announcer.end();
  vi.advanceTimersByTime(60_000);
  expect(sentMs).toEqual([100]);
  announcer.begin();
  vi.advanceTimersByTime(100);
  expect(sentMs).toEqual([100, 60_250]);
});
