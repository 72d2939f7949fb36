import { describe, expect, it } from 'vitest';
import { hardPlan, huntRounds, ROUND_BUGS } from './round-bugs.ts';
import { RoundFailure, runRounds } from './round-swarm.ts';

/** Wall time for seeds that nobody has run before; `GAIA_SIM_SECONDS` gives them more. */
const FRESH_SECONDS = Number(process.env['GAIA_SIM_SECONDS'] ?? 10);

/** Runs without a bug in the circumstances that bugs are looked for in: what is found there must be the bug. */
const UNPLANTED_SEEDS = 3;

describe('rounds under faults', () => {
  it(
    'keep their promises under seeds that nobody has run before',
    () => {
      const endMs = performance.now() + FRESH_SECONDS * 1000;
      let equalities = 0;
      let releases = 0;
      for (let seed = Date.now(); performance.now() < endMs; seed++) {
        const result = runRounds(seed);
        equalities += result.equalities;
        releases += result.releases;
      }
      expect(equalities).toBeGreaterThan(0);
      expect(releases).toBeGreaterThan(0);
    },
    FRESH_SECONDS * 1000 + 60_000,
  );

  it('do the same twice under one seed', () => {
    expect(runRounds(31)).toEqual(runRounds(31));
  });

  it('tell by which command what fails is run again', () => {
    const { message } = new RoundFailure(31, new Error('nobody leads'), true);
    expect(message).toBe('Seed 31: nobody leads; "npm run sim -- --rounds --seed 31" replays it');
  });
});

describe('the round simulator', () => {
  it.each([...new Set(ROUND_BUGS.map(({ harder }) => harder))])(
    'finds nothing under %j where no bug is',
    (harder) => {
      for (let seed = 1; seed <= UNPLANTED_SEEDS; seed++) runRounds(seed, { plan: hardPlan(harder) });
    },
    120_000,
  );

  it.for(ROUND_BUGS)('finds within 40 seeds that $name', { timeout: 120_000 }, async (bug, { annotate }) => {
    const found = huntRounds(bug, 40);
    await annotate(found);
    expect(found).toMatch(bug.says);
  });
});
