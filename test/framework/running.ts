/** Work of the test that goes on only while a guest runs. */
import { setImmediate as turn } from 'node:timers/promises';

const workLimitMs = 30_000;

/** Repeats `step` until `work`, which needs a guest that runs, is done. */
export async function running<T>(work: Promise<T>, step: () => void): Promise<T> {
  const state = { done: false };
  const watched = work.finally(() => {
    state.done = true;
  });
  watched.catch(() => undefined); // It is awaited below, but `step` may throw first.
  const begun = performance.now();
  while (!state.done) {
    if (performance.now() - begun > workLimitMs)
      throw new Error('Work that needs the guest is not done after 30 s');
    step();
    await turn();
  }
  return watched;
}
