import { expect, it } from 'vitest';
import { FreePacer } from './free-pacer.ts';

const settings = { busyUsMax: 20_000, graceUs: 1_000, idleUsMin: 10_000, idleUsMax: 35_000 };

it('a frame begins a round at once, whatever the guest does', () => {
  const pacer = new FreePacer(settings);
  pacer.roundEnded(5_000, true);
  const busy = { untilNs: 0, realUsMax: 20_000, untilQuiet: true };
  expect(pacer.next(5_000, true, true)).toEqual(busy);
  expect(pacer.next(5_000, false, false)).toEqual(busy);
});

it('a quiet guest stands for a moment, then runs for longer and longer while nothing happens', () => {
  const pacer = new FreePacer(settings);
  const lengths: number[] = [];
  let nowUs = 0;
  pacer.roundEnded(nowUs, false);
  for (let round = 0; round < 4; round++) {
    expect(pacer.next(nowUs + 999, false, true)).toBeUndefined();
    expect(pacer.waitUs(nowUs + 999)).toBe(1);
    nowUs += 1_000;
    lengths.push(pacer.next(nowUs, false, true)?.realUsMax ?? 0);
    pacer.roundEnded(nowUs, true);
  }
  expect(lengths).toEqual([10_000, 20_000, 35_000, 35_000]);
  pacer.roundEnded(nowUs, false);
  expect(pacer.next(nowUs + 1_000, false, true)?.realUsMax).toBe(10_000);
});
