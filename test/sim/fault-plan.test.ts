import { expect, it } from 'vitest';
import { chooseFaults } from './fault-plan.ts';
import { Prng } from './prng.ts';

/** About as many as a test run gets through in its time. */
const SEEDS = 60;

it.each([1, 20_000_000, 1_800_000_000_000])(
  'seeds from %i on soon draw three, five and seven replicas',
  (first) => {
    const runs = new Map([3, 5, 7].map((replicas) => [replicas, 0]));
    for (let seed = first; seed < first + SEEDS; seed++) {
      const { replicas } = chooseFaults(new Prng(seed));
      runs.set(replicas, (runs.get(replicas) ?? 0) + 1);
    }
    expect([...runs.keys()]).toEqual([3, 5, 7]);
    for (const count of runs.values()) expect(count).toBeGreaterThan(2);
  },
);
