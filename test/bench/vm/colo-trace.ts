/** Reads what QEMU's trace says of COLO's checkpoints: when the primary stood still, and for how long. */
import { median, percentile } from '../statistics.ts';
import type { SystemFigures } from './system.ts';

/** Makes QEMU write a line with its time whenever COLO stops its VM or lets it run. */
export const coloTraceArguments = ['-msg', 'timestamp=on', '-trace', 'enable=colo_vm_state_change'];

const change = /@(\d+\.\d+):colo_vm_state_change .*=> '(\w+)'/g;

/** Since when the VM stands, in milliseconds of the epoch; undefined: it runs. */
export function stoppedSinceMs(trace: string): number | undefined {
  const [, seconds, state] = [...trace.matchAll(change)].at(-1) ?? [];
  return state === 'stop' ? Number(seconds) * 1000 : undefined;
}

/** How many checkpoints were taken since COLO began, and how long each stopped the VM. */
export function coloFiguresIn(trace: string): SystemFigures {
  const pausesMs: number[] = [];
  let stoppedMs: number | undefined;
  for (const [, seconds, state] of trace.matchAll(change)) {
    const nowMs = Number(seconds) * 1000;
    // It lets the VM run once more than it stops it: at its beginning.
    if (stoppedMs !== undefined && state === 'run') pausesMs.push(nowMs - stoppedMs);
    stoppedMs = state === 'stop' ? nowMs : undefined;
  }
  const checkpoints = { unit: 'count', value: pausesMs.length };
  if (pausesMs.length === 0) return { checkpoints };
  return {
    checkpoints,
    'pause p50': { unit: 'ms', value: median(pausesMs) },
    'pause p99': { unit: 'ms', value: percentile(pausesMs, 99) },
  };
}
