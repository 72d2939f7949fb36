import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadAddon } from './addon.ts';

const addon = loadAddon();

describe('the frequency of the time stamp counter', () => {
  it('is measured the same each time, and as the kernel has measured it', () => {
    const measured = Array.from({ length: 5 }, () => addon.tscKhz());
    const [first = 0] = measured;
    for (const khz of measured) expect(Math.abs(khz / first - 1)).toBeLessThan(1e-4);
    // The kernel derives this from its own calibration: two loops a tick.
    const bogomips = Number(/^bogomips\s*: ([\d.]+)/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]);
    expect(Math.abs((first * 2) / 1000 / bogomips - 1)).toBeLessThan(1e-3);
  });
});
