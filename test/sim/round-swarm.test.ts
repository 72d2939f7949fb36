import { describe, expect, it } from 'vitest';
import { huntRounds, ROUND_BUGS } from './round-bugs.ts';
import { RoundFailure, runRounds } from './round-swarm.ts';

/** Wall time for seeds that nobody has run before; `GAIA_SIM_SECONDS` gives them more. */
const FRESH_SECONDS = Number(process.env['GAIA_SIM_SECONDS'] ?? 10);

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
  it.each(ROUND_BUGS)(
    'finds within 40 seeds that $name',
    (bug) => {
      expect(huntRounds(bug, 40), 'no seed found it').toBeDefined();
    },
    120_000,
  );
});
