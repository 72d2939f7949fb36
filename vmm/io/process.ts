/** Processes of this machine by pid, with a look at what they are before they are ended: pids are used again. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const pollMs = 20;

/** The pid in a pid file, or undefined when there is none. */
export function readPid(file: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
    return Number.isInteger(pid) && pid > 1 ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** The words of its command line, joined; undefined when it has ended. */
function commandLine(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    return text === '' ? undefined : text; // A zombie has none.
  } catch {
    return undefined;
  }
}

/** What the command line of a process holds, and that of no other. */
type Mark = string | RegExp;

/** Runs, and is what it is taken for: its command line holds `mark`. */
export function processRuns(pid: number | undefined, mark: Mark): boolean {
  const line = pid === undefined ? undefined : commandLine(pid);
  if (line === undefined) return false;
  return typeof mark === 'string' ? line.includes(mark) : mark.test(line);
}

/**
 * Waits for the process to end by itself; after `timeoutMs` kills it, if its command line holds `mark`. True: it
 * was killed.
 */
export async function endProcess(pid: number | undefined, mark: Mark, timeoutMs: number): Promise<boolean> {
  if (pid === undefined) return false;
  const deadline = performance.now() + timeoutMs;
  const isOurs = () => processRuns(pid, mark);
  while (isOurs() && performance.now() < deadline) await delay(pollMs);
  if (!isOurs()) return false;
  process.kill(pid, 'SIGKILL');
  while (isOurs() || isEnding(pid)) await delay(pollMs);
  return true;
}

/**
 * Its memory is gone, but not yet its descriptors: a tap that it has is still busy. They are held by its last thread,
 * which may outlive the first one, the zombie (proc_pid_stat(5): state is field 3, num_threads field 20).
 */
function isEnding(pid: number): boolean {
  if (commandLine(pid) !== undefined) return false;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, threads] = [fields[0], Number(fields[17])];
    return !(state === 'X' || (state === 'Z' && threads <= 1));
  } catch {
    return false;
  }
}
