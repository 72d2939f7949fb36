import { describe, expect, it } from 'vitest';
import { DiskPace } from './disk-pace.ts';

/** Looks every 10 ms, as the loop does, until a write that began at `fromUs` is finished. */
function write(pace: DiskPace, fromUs: number, tookUs: number): number {
  const endUs = fromUs + tookUs;
  for (let nowUs = fromUs; nowUs < endUs; nowUs += 10_000) pace.look(nowUs, false, true);
  pace.look(endUs, true, false);
  return endUs;
}

describe("a disk's pace", () => {
  it('is told of once while it stays slow, and again after it has been fast', () => {
    const pace = new DiskPace();
    let nowUs = write(pace, 0, 20_000);
    expect(pace.takeSlow()).toBeUndefined();
    nowUs = write(pace, nowUs, 200_000);
    expect(pace.takeSlow()).toBe(200_000);
    nowUs = write(pace, nowUs, 300_000);
    expect(pace.takeSlow()).toBeUndefined();
    write(pace, nowUs + 60_000_000, 250_000);
    expect(pace.takeSlow()).toBe(250_000);
  });

  it('is no stall while something is finished now and then, and one when nothing is', () => {
    const pace = new DiskPace();
    for (let nowUs = 0; nowUs < 5e6; nowUs += 10_000) pace.look(nowUs, nowUs % 500_000 === 0, true);
    expect(pace.stalls).toBe(false);
    for (let nowUs = 5e6; nowUs < 6.2e6; nowUs += 10_000) pace.look(nowUs, false, true);
    expect(pace.stalls).toBe(true);
    pace.look(6.3e6, true, true);
    expect(pace.stalls).toBe(false);
  });

  it('does not answer for the time in which nobody looked', () => {
    const pace = new DiskPace();
    pace.look(0, false, true);
    pace.look(10e6, true, false);
    expect(pace.takeSlow()).toBeUndefined();
    expect(pace.stalls).toBe(false);
  });
});
