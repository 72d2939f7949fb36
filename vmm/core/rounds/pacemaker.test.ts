import { describe, expect, it } from 'vitest';
import { DEFAULT_PACEMAKER, Pacemaker } from './pacemaker.ts';

const { sliceNsMin, sliceNsMax, idleSliceNs, aheadNsMax } = DEFAULT_PACEMAKER;

function level(): Pacemaker {
  const pacemaker = new Pacemaker();
  pacemaker.align(1_000_000_000, 0);
  return pacemaker;
}

describe('the pacemaker', () => {
  it('begins a round at once when a frame waits, also while the guest is a little ahead', () => {
    expect(level().sliceNs(1_000_000_000, 0, true, true)).toBe(sliceNsMin);
    expect(level().sliceNs(1_000_000_000, aheadNsMax - 1, true, true)).toBe(sliceNsMin);
  });

  it('lets nothing run that is too far ahead of the wall clock', () => {
    expect(level().sliceNs(1_000_000_000, aheadNsMax + 1, true, true)).toBe(0);
    expect(level().sliceNs(1_000_000_000, aheadNsMax + 1, false, false)).toBe(0);
  });

  it('gives a busy guest no more than the longest slice, so that a frame does not wait long', () => {
    expect(level().sliceNs(1_500_000_000, 0, false, false)).toBe(sliceNsMax);
  });

  it('gives an idle guest a slice only once it fell behind by one', () => {
    expect(level().sliceNs(1_000_000_000 + idleSliceNs - 1, 0, true, false)).toBe(0);
    expect(level().sliceNs(1_000_000_000 + idleSliceNs, 0, true, false)).toBe(idleSliceNs);
    expect(level().waitNs(1_000_000_000 + idleSliceNs / 4, 0, true)).toBe((idleSliceNs * 3) / 4);
  });

  it('does not chase time that a stalled host has lost', () => {
    const pacemaker = level();
    pacemaker.sliceNs(60_000_000_000, 0, false, false);
    // A second later the guest has run a second: without the lost minute it is no longer behind.
    expect(pacemaker.sliceNs(60_000_000_000, 1_000_000_000, true, false)).toBe(0);
  });
});
