/** One set-up at a time in one tree. A holder that was killed is recognised by its pid and start time. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { findProcess } from './process-list.mjs';

const pollMs = 250;

/**
 * Waits for the lock at `path`.
 * @param {string} path
 * @param {(holderPid: number) => void} onWait called once when another set-up has it
 * @returns {Promise<() => void>} gives it back
 */
export async function takeLock(path, onWait) {
  const own = `${process.pid} ${findProcess(process.pid)?.started ?? ''}\n`;
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, own);
  let told = false;
  try {
    // A hard link appears whole or not at all, so nobody ever reads a lock without its holder.
    while (!linked(draft, path)) {
      const text = readOrEmpty(path);
      const [pid = '', started = ''] = text.trim().split(' ');
      const holder = findProcess(Number(pid));
      if (holder !== undefined && holder.started === started) {
        if (!told) onWait(Number(pid));
        told = true;
        await new Promise((resolve) => setTimeout(resolve, pollMs));
      } else if (text !== '') {
        discardStale(path, text);
        // It may have been killed between taking the lock and clearing its draft away.
        if (Number(pid) !== process.pid) rmSync(`${path}.${pid}`, { force: true });
      }
    }
  } finally {
    rmSync(draft, { force: true });
  }
  return () => {
    if (readOrEmpty(path) === own) rmSync(path, { force: true });
  };
}

/** @param {string} draft @param {string} path */
function linked(draft, path) {
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EEXIST') return false;
    throw error;
  }
}

/** @param {string} path */
function readOrEmpty(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Two set-ups may find the same dead holder: what was moved away is put back if it was a new holder's.
 * @param {string} path @param {string} staleText
 */
function discardStale(path, staleText) {
  const aside = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  if (readOrEmpty(aside) !== staleText) linked(aside, path);
  rmSync(aside, { force: true });
}
