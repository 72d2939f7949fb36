/**
 * Starts programs for the steps. Each leads a session of its own, so that it can be ended with all that it
 * started, now or, after the set-up itself was killed, by the next one.
 */
import { spawn } from 'node:child_process';
import { appendFileSync, closeSync, openSync, readFileSync } from 'node:fs';
import { findProcess, membersOf } from './process-list.mjs';

const tailLinesMax = 40;
const graceMs = 10_000;
/** Process id and start time stay the same when the shell becomes the program. */
const noteAndBecome = 'read -r stat </proc/self/stat && printf "%s\\n" "$stat" >>"$0" && exec "$@"';

/** The program ended with another exit code than 0. */
export class ChildFailure extends Error {
  /** @param {string} program @param {number | null} exitCode @param {string[]} tail its last lines */
  constructor(program, exitCode, tail) {
    super(`${program} failed${exitCode === null ? '' : ` with exit code ${exitCode}`}`);
    this.exitCode = exitCode;
    this.tail = tail;
  }
}

/**
 * @typedef {object} ChildOptions
 * @property {string} folder
 * @property {string} logFile
 * @property {(line: string) => void} onLine
 * @property {string} sessionFile where the program is noted before it begins
 * @property {AbortSignal} signal
 * @property {boolean} [outlives] true for programs that must not be killed halfway when the set-up is
 * @property {NodeJS.ProcessEnv} [environment]
 */

/**
 * Runs a program to its end; resolves with what it printed on stdout.
 * @param {readonly string[]} command
 * @param {ChildOptions} options
 * @returns {Promise<string>}
 */
export async function runChild(command, options) {
  // A program that outlives the set-up must not find its output broken: it writes to the log itself.
  const ownLog = options.outlives === true ? openSync(options.logFile, 'a') : undefined;
  // The program notes itself, so that there is no moment in which it runs and nobody knows of it.
  const noted = ['sh', '-c', noteAndBecome, options.sessionFile, ...command];
  const [program = '', ...rest] =
    options.outlives === true ? noted : ['setpriv', '--pdeathsig', 'KILL', '--', ...noted];
  const child = spawn(program, rest, {
    cwd: options.folder,
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.environment },
    stdio: ['ignore', ownLog ?? 'pipe', ownLog ?? 'pipe'],
    detached: true,
  });
  if (ownLog !== undefined) closeSync(ownLog);
  const output = collect(child, options);
  const abort = () => {
    // Of its own accord a program that must not be stopped halfway picks a good moment.
    if (options.outlives === true) child.kill('SIGINT');
    else void endSession(child.pid, 'SIGTERM');
  };
  options.signal.addEventListener('abort', abort, { once: true });
  if (options.signal.aborted) abort();
  /** @type {number | null} */
  const exitCode = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code));
  });
  options.signal.removeEventListener('abort', abort);
  options.signal.throwIfAborted();
  if (exitCode !== 0) {
    const logged = readFileSync(options.logFile, 'utf8').trimEnd().split('\n');
    throw new ChildFailure(command[0] ?? '', exitCode, logged.slice(-tailLinesMax));
  }
  return output.text;
}

/**
 * Writes what the program prints to the log and hands it on line by line.
 * @param {import('node:child_process').ChildProcess} child @param {ChildOptions} options
 */
function collect(child, options) {
  const output = { text: '' };
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    let rest = '';
    stream.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      appendFileSync(options.logFile, text);
      if (stream === child.stdout) output.text += text;
      const lines = (rest + text).split(/\r?\n|\r/);
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim() !== '') options.onLine(line);
    });
  }
  return output;
}

/**
 * Asks every process of the session to end, and insists after a while.
 * @param {number | undefined} session
 * @param {'SIGTERM' | 'SIGKILL'} firstSignal
 */
async function endSession(session, firstSignal) {
  if (session === undefined) return;
  const deadline = performance.now() + graceMs;
  signalAll(session, firstSignal);
  while (membersOf(session).length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (firstSignal === 'SIGKILL' || performance.now() > deadline) signalAll(session, 'SIGKILL');
  }
}

/** @param {number} session @param {NodeJS.Signals} signal */
function signalAll(session, signal) {
  for (const pid of membersOf(session)) {
    try {
      process.kill(pid, signal);
    } catch {
      // It ended by itself in between.
    }
  }
}

/**
 * Ends what an interrupted step left running. As long as a session has members its number is not given
 * away, so a leader of that pid with another start time means that all of ours are gone.
 * @param {readonly import('./process-list.mjs').Process[]} sessions
 * @param {boolean} wait rather than kill: for programs that must not be stopped halfway
 */
export async function endLeftovers(sessions, wait) {
  for (const { pid, started } of sessions) {
    const leader = findProcess(pid);
    if (leader !== undefined && leader.started !== started) continue;
    if (!wait) await endSession(pid, 'SIGKILL');
    while (membersOf(pid).length > 0) await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
