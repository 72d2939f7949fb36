import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cpuSecondsOf } from './process-cpu.ts';

describe('processor time', () => {
  it('is the sum of user and system time, whatever the name of the process', () => {
    const stat = '42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 7 20 0 1 0 1000 1 1 1\n';
    expect(cpuSecondsOf(stat)).toBe(2);
  });

  it('of this very process is what Node says of it', () => {
    const { user, system } = process.cpuUsage();
    expect(cpuSecondsOf(readFileSync('/proc/self/stat', 'utf8'))).toBeCloseTo((user + system) / 1e6, 0);
  });

  it('is not made up from another text', () => {
    expect(() => cpuSecondsOf('nothing')).toThrow('"nothing" is not the accounting of a process');
  });
});
