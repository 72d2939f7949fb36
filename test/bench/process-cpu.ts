/** How much processor time processes use, as the kernel accounts it. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** USER_HZ: what /proc counts in, the same for every Linux on x86. */
const ticksPerSecond = 100;

/** User and system time in the text of /proc/PID/stat, all threads together, seconds. Throws when it is none. */
export function cpuSecondsOf(stat: string): number {
  // The name stands in parentheses and may hold spaces and parentheses itself.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  if (!Number.isFinite(ticks)) throw new Error(`"${stat.trim()}" is not the accounting of a process`);
  return ticks / ticksPerSecond;
}

function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + cpuSecondsOf(readFileSync(`/proc/${pid}/stat`, 'utf8')), 0);
}

/** Share of one core that the processes use together over `durationMs`, percent. Throws when one of them ends. */
export async function cpuPercent(
  pids: readonly number[],
  durationMs: number,
  signal: AbortSignal,
): Promise<number> {
  const usedBefore = cpuSeconds(pids);
  const began = performance.now();
  await delay(durationMs, undefined, { signal });
  const used = cpuSeconds(pids) - usedBefore;
  return (used / ((performance.now() - began) / 1000)) * 100;
}
