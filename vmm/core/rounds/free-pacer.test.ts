import { describe, expect, it } from 'vitest';
import { FreePacer } from './free-pacer.ts';

const settings = {
  busyUsMax: 20_000,
  lullUs: 500,
  gatherUsMax: 2_000,
  graceUs: 1_000,
  idleUsMin: 10_000,
  idleUsMax: 35_000,
};
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
    expect(pacer.waitUs(nowUs + 999)).toBe(1);
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
    pacer.awaits(14);
    expect(pacer.next(100, 6, true)).toBeUndefined();
    expect(pacer.waitUs(100)).toBe(500);
    expect(pacer.next(500, 13, true)).toBeUndefined();
    expect(pacer.waitUs(600)).toBe(400);
    expect(pacer.next(610, 14, true)).toEqual(busy);
    // From the next output on it is another gathering.
    expect(pacer.next(620, 1, true)).toEqual(busy);
  });

  it('are waited for although the guest has more to do, and none has come yet', () => {
    const pacer = new FreePacer(settings);
    pacer.awaits(14);
    expect(pacer.next(100, 0, false)).toBeUndefined();
    expect(pacer.next(599, 0, false)).toBeUndefined();
    expect(pacer.next(600, 0, false)).toEqual(busy);
  });

  it('are waited for no longer once nobody has come for a while: who gets two frames may send one', () => {
    const pacer = new FreePacer(settings);
    pacer.awaits(2);
    expect(pacer.next(0, 0, true)).toBeUndefined();
    expect(pacer.next(200, 1, true)).toBeUndefined();
    expect(pacer.next(699, 1, true)).toBeUndefined();
    expect(pacer.next(700, 1, true)).toEqual(busy);
  });

  it('are not waited for longer than agreed, however many still come', () => {
    const pacer = new FreePacer(settings);
    pacer.awaits(100);
    for (let came = 0; came < 20; came++) expect(pacer.next(100 * came, came, true)).toBeUndefined();
    expect(pacer.waitUs(1_900)).toBe(100);
    expect(pacer.next(2_000, 20, true)).toEqual(busy);
  });

  it('keep no quiet guest from its rounds without input', () => {
    const pacer = new FreePacer(settings);
    pacer.roundEnded(0, false);
    pacer.awaits(1);
    expect(pacer.next(0, 0, true)).toBeUndefined();
    expect(pacer.next(500, 0, true)).toBeUndefined();
    expect(pacer.waitUs(500)).toBe(500);
    expect(pacer.next(1_000, 0, true)?.realUsMax).toBe(10_000);
  });
});
