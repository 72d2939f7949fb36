/* global AbortController, AbortSignal */
/**
 * Runs steps in the order of their needs, those that need nothing of each other side by side. When one fails
 * the others are stopped, since the next run carries on where they were.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ChildFailure, endLeftovers, runChild } from './child.mjs';
import { SetupFailure } from './failure.mjs';

/**
 * @typedef {object} StepTools what a running step works with
 * @property {string} root the folder of package.json
 * @property {boolean} interrupted whether the last run of this step did not come to its end
 * @property {string} logFile everything that the step's programs print
 * @property {AbortSignal} signal
 * @property {(text: string) => void} report tells the operator what is being done
 * @property {(command: readonly string[], options?: import('./child.mjs').ChildOptions | object) => Promise<string>} run
 */

/**
 * @typedef {object} Step
 * @property {string} id
 * @property {string} title
 * @property {readonly string[]} needs
 * @property {(root: string) => string} [inputs] a hash; a step without it looks itself whether there is work
 * @property {() => boolean} [settled] whether a step without inputs has nothing to do, where that is quickly told
 * @property {(root: string) => boolean} [present] whether the outputs are there
 * @property {(root: string) => boolean} [adopt] whether somebody did the work by hand already
 * @property {boolean} [outlives] its programs must not be stopped halfway: leftovers are waited for
 * @property {(tools: StepTools) => Promise<string>} work returns what was done, in a few words
 */

/**
 * @typedef {object} RunOptions
 * @property {string} root
 * @property {import('./stamp.mjs').Stamps} stamps
 * @property {import('./display.mjs').Display} display
 * @property {AbortSignal} signal
 * @property {number} [atATime]
 * @property {boolean} [keepGoing] true runs the other steps to their end when one fails
 */

/**
 * Resolves with the failures, each with its step; none means that all is done.
 * @param {readonly Step[]} steps
 * @param {RunOptions} options
 * @returns {Promise<{ step: Step; failure: SetupFailure }[]>}
 */
export async function runSteps(steps, options) {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  /** @type {{ step: Step; failure: SetupFailure }[]} */
  const failures = [];
  /** @type {Map<string, Promise<boolean>>} */
  const ends = new Map();
  const limit = slots(options.atATime ?? steps.length);
  for (const step of steps) {
    const needs = step.needs.map((id) => ends.get(id)).filter((end) => end !== undefined);
    ends.set(
      step.id,
      (async () => {
        if ((await Promise.all(needs)).includes(false)) return false;
        const free = await limit();
        try {
          if (signal.aborted) return false;
          await runStep(step, { ...options, signal });
          return true;
        } catch (error) {
          if (signal.aborted) {
            options.display.end(step.id, step.title, 'stopped', 'stopped');
            return false;
          }
          failures.push({ step, failure: explain(step, error, options.root) });
          options.display.end(step.id, step.title, 'failed', 'failed');
          if (options.keepGoing !== true) stop.abort(new Error('another step failed'));
          return false;
        } finally {
          free();
        }
      })(),
    );
  }
  await Promise.all(ends.values());
  options.display.close();
  options.signal.throwIfAborted();
  return failures;
}

/** @param {Step} step @param {RunOptions} options */
async function runStep(step, { root, stamps, display, signal }) {
  const interrupted = stamps.wasInterrupted(step.id);
  if (!interrupted && step.settled?.() === true) {
    display.end(step.id, step.title, 'current', 'up to date');
    return;
  }
  const hash = step.inputs?.(root);
  if (!interrupted && hash !== undefined) {
    const present = step.present?.(root) ?? true;
    if (present && stamps.isFresh(step.id, hash)) {
      display.end(step.id, step.title, 'current', 'up to date');
      return;
    }
    if (present && step.adopt?.(root) === true) {
      stamps.finish(step.id, hash);
      display.end(step.id, step.title, 'current', 'up to date, found as it is');
      return;
    }
  }
  display.begin(step.id, step.title);
  if (interrupted) await endLeftovers(stamps.leftoverSessions(step.id), step.outlives === true);
  stamps.begin(step.id);
  const logs = join(root, '.setup/log');
  mkdirSync(logs, { recursive: true });
  const logFile = join(logs, `${step.id}.log`);
  rmSync(logFile, { force: true });
  const done = await step.work({
    root,
    interrupted,
    logFile,
    signal,
    report: (text) => display.update(step.id, text),
    run: (command, more = {}) =>
      runChild(command, {
        folder: root,
        logFile,
        signal,
        onLine: (line) => display.update(step.id, line.trim()),
        sessionFile: stamps.sessionFile(step.id),
        outlives: step.outlives === true,
        ...more,
      }),
  });
  // The inputs as they were before the work: what changed meanwhile makes the next run do it again.
  stamps.finish(step.id, hash);
  display.end(step.id, step.title, 'done', done);
}

/** @param {Step} step @param {unknown} error @param {string} root */
function explain(step, error, root) {
  if (error instanceof SetupFailure) return error;
  const logFile = join(root, '.setup/log', `${step.id}.log`);
  if (error instanceof ChildFailure) {
    const line = error.tail.at(-1) ?? 'it printed nothing';
    return new SetupFailure(
      `${error.message} (${line}): see ${logFile}, mend it and run the same command again`,
      1,
      logFile,
    );
  }
  const text = error instanceof Error ? error.message : String(error);
  return new SetupFailure(`${text}: mend it and run the same command again`);
}

/**
 * At most `count` holders at a time; each gets a function that lets the next one in.
 * @param {number} count
 * @returns {() => Promise<() => void>}
 */
function slots(count) {
  let free = count;
  /** @type {(() => void)[]} */
  const waiting = [];
  return async () => {
    if (free === 0) await new Promise((resolve) => waiting.push(() => resolve(undefined)));
    else free -= 1;
    return () => {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    };
  };
}
