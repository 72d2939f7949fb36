import { describe, expect, it } from 'vitest';
import { FreePacer } from './free-pacer.ts';

const settings = { busyUsMax: 20_000, gatherUs: 800, graceUs: 1_000, idleUsMin: 10_000, idleUsMax: 35_000 };
const busy = { untilNs: 0, realUsMax: 20_000, untilQuiet: true };

it('a frame begins a round at once, and so does a guest that is not done', () => {
  const pacer = new FreePacer(settings);
  pacer.roundEnded(5_000, true);
  expect(pacer.next(5_000, 1, true)).toEqual(busy);
  expect(pacer.next(5_000, 0, false)).toEqual(busy);
});

it('a quiet guest stands for a moment, then runs for longer and longer while nothing happens', () => {
  const pacer = new FreePacer(settings);
  const lengths: number[] = [];
  let nowUs = 0;
  pacer.roundEnded(nowUs, false);
  for (let round = 0; round < 4; round++) {
    expect(pacer.next(nowUs + 999, 0, true)).toBeUndefined();
    expect(pacer.waitUs(nowUs + 999, 0)).toBe(1);
    nowUs += 1_000;
    lengths.push(pacer.next(nowUs, 0, true)?.realUsMax ?? 0);
    pacer.roundEnded(nowUs, true);
  }
  expect(lengths).toEqual([10_000, 20_000, 35_000, 35_000]);
  pacer.roundEnded(nowUs, false);
  expect(pacer.next(nowUs + 1_000, 0, true)?.realUsMax).toBe(10_000);
});

describe('those who were just answered', () => {
  it('are waited for, so that all are in one round', () => {
    const pacer = new FreePacer(settings);
    pacer.released(0, 8, 6);
    expect(pacer.next(100, 6, true)).toBeUndefined();
    expect(pacer.waitUs(100, 6)).toBe(700);
    expect(pacer.next(300, 13, true)).toBeUndefined();
    expect(pacer.next(310, 14, true)).toEqual(busy);
    // From the next round's end on it is another gathering.
    expect(pacer.next(320, 1, true)).toEqual(busy);
  });

  it('are not waited for longer than agreed, nor while the guest is not done', () => {
    const pacer = new FreePacer(settings);
    pacer.released(0, 8, 6);
    expect(pacer.next(10, 6, false)).toEqual(busy);
    expect(pacer.next(799, 9, true)).toBeUndefined();
    expect(pacer.next(800, 9, true)).toEqual(busy);
  });

  it('are waited for no longer than usual: who gets two frames and sends one is served at once', () => {
    const pacer = new FreePacer(settings);
    let waitedRounds = 0;
    for (let round = 0; round < 80; round++) {
      const nowUs = 10_000 * round;
      pacer.released(nowUs, 2, 0);
      if (pacer.next(nowUs + 50, 1, true) === undefined) waitedRounds++;
      expect(pacer.next(nowUs + 800, 1, true)).toEqual(busy);
    }
    expect(waitedRounds).toBe(10);
  });
});
