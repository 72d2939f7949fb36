import { describe, expect, it } from 'vitest';
import { coloFiguresIn, stoppedSinceMs } from './colo-trace.ts';

const began = "7@100.000000:colo_vm_state_change Change 'stop' => 'run'\n";
const stops = "7@101.000000:colo_vm_state_change Change 'run' => 'stop'\n";
const runs = "7@101.250000:colo_vm_state_change Change 'stop' => 'run'\n";

describe("QEMU's trace of COLO", () => {
  it('tells how long checkpoints stop the VM', () => {
    const trace = `qemu-system-x86_64: a complaint\n${began}${stops}${runs}`;
    const pause = { unit: 'ms', value: 250 };
    const checkpoints = { unit: 'count', value: 1 };
    expect(coloFiguresIn(trace)).toEqual({ checkpoints, 'pause p50': pause, 'pause p99': pause });
    expect(stoppedSinceMs(trace)).toBeUndefined();
  });

  it('tells of no checkpoint, and of one that has not ended', () => {
    const none = { checkpoints: { unit: 'count', value: 0 } };
    expect(coloFiguresIn(began)).toEqual(none);
    expect(coloFiguresIn(`${began}${stops}`)).toEqual(none);
    expect(stoppedSinceMs(`${began}${stops}`)).toBe(101_000);
    expect(stoppedSinceMs('')).toBeUndefined();
  });
});
