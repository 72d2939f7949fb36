/* global AbortController */
/** Reads what the operator wants, makes the clone ready for it and then does it. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkSteps } from './checks.mjs';
import { isRoot, missingPackages, requirePermission } from './debian.mjs';
import { Display } from './display.mjs';
import { SetupFailure } from './failure.mjs';
import { takeLock } from './lock.mjs';
import { runSteps } from './runner.mjs';
import { Stamps } from './stamp.mjs';
import { stepsFor } from './steps.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const everything = ['addon', 'qemu', 'image'];
const command = 'node cli/setup.mjs';

/**
 * @typedef {object} Goal
 * @property {string} describe
 * @property {readonly string[]} steps what must be ready first
 * @property {(words: readonly string[]) => Promise<number>} [then] what is done after; resolves with the exit code
 */

/** @type {Readonly<Record<string, Goal>>} */
const goals = {
  start: {
    describe: 'get everything ready and start the demo VM on three replicas',
    steps: everything,
    then: (words) =>
      runForeground(asRoot([process.execPath, 'dist/cli/gaia-vm.js', 'start', '--replicas', '3', ...words])),
  },
  test: {
    describe: 'get everything ready and run the tests; further words go to vitest',
    steps: everything,
    then: (words) => runTests(words, {}),
  },
  soak: {
    describe: 'the long tests: many kills, one hour, many seeds',
    steps: everything,
    then: (words) => runTests(words, { GAIA_SOAK: '1' }),
  },
  bench: {
    describe: 'run the bench NAME, see docs/benchmarks.md',
    steps: everything,
    then: (words) => runForeground(asRoot([process.execPath, 'dist/test/bench/main.js', ...words])),
  },
  check: {
    describe: 'hold the sources to every rule of the house',
    steps: ['debian', 'npm'],
    then: runChecks,
  },
  all: { describe: 'get everything ready', steps: everything },
  packages: { describe: 'only the Debian packages', steps: ['debian'] },
  npm: { describe: 'only the npm packages', steps: ['npm'] },
  build: { describe: 'compile TypeScript to dist/', steps: ['build'] },
  addon: { describe: 'build the native addon', steps: ['addon'] },
  qemu: { describe: 'build the patched QEMU', steps: ['qemu'] },
  image: { describe: 'build the demo image', steps: ['image'] },
};

/** @param {readonly string[]} words @returns {Promise<number>} the exit code */
export async function main(words) {
  const [name = '', ...rest] = words;
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(help());
    return 0;
  }
  const goal = Object.hasOwn(goals, name) ? goals[name] : undefined;
  if (goal === undefined || (goal.then === undefined && rest.length > 0)) {
    const wrong = goal === undefined ? name : (rest[0] ?? '');
    process.stderr.write(
      `set-up: ${wrong === '' ? 'What shall be done?' : `There is no "${wrong}" here`}\n\n${help()}`,
    );
    return 2;
  }
  const startedAt = performance.now();
  const ended = await prepare(goal.steps);
  if (ended !== 0) return ended;
  if (goal.then !== undefined) return await goal.then(rest);
  process.stderr.write(`set-up: ready after ${((performance.now() - startedAt) / 1000).toFixed(1)} s\n`);
  return 0;
}

function help() {
  const width = Math.max(...Object.keys(goals).map((name) => name.length));
  const lines = Object.entries(goals).map(([name, goal]) => `  ${name.padEnd(width)}  ${goal.describe}`);
  return `Usage: ${command} GOAL [words]\n\n${lines.join('\n')}\n\nExample: ${command} test --project unit\nGAIA_ROOT=FOLDER moves the cache and all state of gaia-vm there.\n`;
}

/** Takes the steps under the lock. @param {readonly string[]} ids @returns {Promise<number>} the exit code */
async function prepare(ids) {
  const steps = stepsFor(ids);
  return await guarded(20, async (signal) => {
    if (steps.some(({ id }) => id === 'debian')) requirePermission(missingPackages());
    return await runSteps(steps, { root, stamps: stamps(), display: new Display(process.stderr), signal });
  });
}

/** @returns {Promise<number>} */
async function runChecks() {
  // Knip and the types of the sources see only what is there: nothing has to be built for them.
  return await guarded(Infinity, (signal) =>
    runSteps(checkSteps(root), {
      root,
      stamps: stamps(),
      display: new Display(process.stderr),
      signal,
      atATime: 2,
      keepGoing: true,
    }),
  );
}

function stamps() {
  return new Stamps(join(root, '.setup/stamps'));
}

/**
 * Does `work` as the only set-up in this tree; failures and interruptions become messages and exit codes.
 * @param {number} logLinesMax how much of a failed step's log is shown
 * @param {(signal: AbortSignal) => Promise<{ failure: SetupFailure }[]>} work
 * @returns {Promise<number>}
 */
async function guarded(logLinesMax, work) {
  const own = join(root, '.setup');
  mkdirSync(own, { recursive: true });
  // Nothing in here concerns git, whatever the tree's own list says.
  if (!existsSync(join(own, '.gitignore'))) writeFileSync(join(own, '.gitignore'), '*\n');
  const controller = new AbortController();
  let exitCode = 0;
  /** @type {(name: 'SIGINT' | 'SIGTERM' | 'SIGHUP') => void} */
  const abort = (name) => {
    exitCode = 128 + { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }[name];
    controller.abort(new Error('interrupted'));
  };
  const release = await takeLock(join(own, 'lock'), (pid) =>
    process.stderr.write(`set-up: process ${pid} is setting up this tree: waiting until it is done\n`),
  );
  for (const name of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.on(name, abort);
  try {
    for (const { failure } of await work(controller.signal)) {
      printFailure(failure, logLinesMax);
      exitCode ||= failure.exitCode;
    }
  } catch (error) {
    if (controller.signal.aborted) {
      process.stderr.write('set-up: Interrupted: run the same command again to carry on\n');
    } else if (error instanceof SetupFailure) {
      printFailure(error, logLinesMax);
      exitCode = error.exitCode;
    } else throw error;
  } finally {
    release();
    for (const name of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.off(name, abort);
  }
  return exitCode;
}

/** The end of the log first, so that the sentence that counts stands last. @param {SetupFailure} failure @param {number} linesMax */
function printFailure(failure, linesMax) {
  if (failure.logFile !== undefined && existsSync(failure.logFile)) {
    const lines = readFileSync(failure.logFile, 'utf8').trimEnd().split('\n');
    process.stderr.write(`${lines.slice(-linesMax).join('\n')}\n\n`);
  }
  process.stderr.write(`set-up: ${failure.message}\n`);
}

/** @param {readonly string[]} words @param {NodeJS.ProcessEnv} environment */
async function runTests(words, environment) {
  // The tests run the very QEMU that was just made ready, unless somebody names another.
  const qemu =
    process.env.GAIA_QEMU ??
    execFileSync(process.execPath, ['dist/cli/gaia-vm.js', 'qemu', 'path'], {
      cwd: root,
      encoding: 'utf8',
    }).trim();
  return await runForeground([process.execPath, 'node_modules/vitest/vitest.mjs', 'run', ...words], {
    ...environment,
    GAIA_QEMU: qemu,
  });
}

/** Taps and bridges need root; what the operator set goes along. @param {readonly string[]} words */
function asRoot(words) {
  return isRoot() ? words : ['sudo', '--preserve-env=GAIA_ROOT,NO_COLOR,TERM', ...words];
}

/**
 * Gives the terminal to a program. Ctrl-C reaches it directly, so this process only waits for its end.
 * @param {readonly string[]} words
 * @param {NodeJS.ProcessEnv} [environment]
 * @returns {Promise<number>}
 */
async function runForeground([program = '', ...rest], environment = {}) {
  const child = spawn(program, rest, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment },
  });
  const ignore = () => undefined;
  const forward = () => void child.kill('SIGTERM');
  process.on('SIGINT', ignore);
  process.on('SIGTERM', forward);
  return await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)));
  });
}
