/** Who is alive: processes by pid and start time, so that a pid given away twice is not mistaken. */
import { readFileSync, readdirSync } from 'node:fs';

/** @typedef {{ pid: number; started: string; session: number }} Process */

/**
 * Reads a line of /proc/PID/stat.
 * @param {string} stat
 * @returns {Process | undefined} undefined when it is torn, or the process is only waiting to be forgotten
 */
export function parseProcess(stat) {
  // The name, in parentheses, may hold anything; the fields after it are numbers.
  const [state = '', ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const started = fields[18];
  if (started === undefined || state === 'Z') return undefined;
  return { pid: Number.parseInt(stat, 10), session: Number(fields[2]), started };
}

/** @param {number} pid @returns {Process | undefined} undefined when there is no such process */
export function findProcess(pid) {
  try {
    return parseProcess(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return undefined;
  }
}

/** @param {number} session @returns {number[]} the pids of its living members */
export function membersOf(session) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => findProcess(pid)?.session === session);
}
