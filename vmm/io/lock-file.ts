/**
 * One holder at a time, across processes: a file that names its holder by pid and start time. A holder that
 * was killed is recognised and replaced, also when its pid has been given to another process since.
 */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';

export interface LockFile {
  release(): void;
}

/** Takes the lock at `path`, or returns the pid of the living process that has it. */
export function takeLock(path: string): LockFile | { readonly holderPid: number } {
  const own = `${process.pid} ${startTicks(process.pid) ?? ''}\n`;
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, own);
  try {
    // A hard link appears whole or not at all, so nobody ever reads a lock without its holder.
    while (!linked(draft, path)) {
      const found = readHolder(path);
      if (found === undefined) continue;
      if (alive(found.pid, found.started)) return { holderPid: found.pid };
      discardStale(path, found.text);
      // It may have been killed between taking the lock and clearing its draft away.
      if (found.pid !== process.pid) rmSync(`${path}.${found.pid}`, { force: true });
    }
  } finally {
    rmSync(draft, { force: true });
  }
  return {
    release() {
      if (readHolder(path)?.text === own) rmSync(path, { force: true });
    },
  };
}

function linked(draft: string, path: string): boolean {
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function readHolder(path: string): { text: string; pid: number; started: string } | undefined {
  try {
    const text = readFileSync(path, 'utf8');
    const [pid = '', started = ''] = text.trim().split(' ');
    return { text, pid: Number(pid), started };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Two processes may find the same dead holder: what was moved away is put back if it was a new holder's. */
function discardStale(path: string, staleText: string): void {
  const aside = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if (readFileSync(aside, 'utf8') !== staleText) linked(aside, path);
  rmSync(aside, { force: true });
}

function alive(pid: number, started: string): boolean {
  return startTicks(pid) === started && started !== '';
}

/** When the process began, in clock ticks since boot (field 22 of its stat), or undefined when there is none. */
function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? undefined : fields[18];
  } catch {
    return undefined;
  }
}
