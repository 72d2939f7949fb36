/** One run of one seed of the round simulator, and how its end is told. */
import type { Prng } from './prng.ts';
import { RoundCluster, type RoundResult } from './round-cluster.ts';
import type { SimHost } from './round-world.ts';
import { chooseRoundPlan, type RoundPlan } from './round-plan.ts';

const RUN_US = 1_500_000;

export class RoundFailure extends Error {
  readonly seed: number;

  /** `asChosen`: the seed alone says what was run. */
  constructor(seed: number, cause: unknown, asChosen: boolean) {
    const text = cause instanceof Error ? cause.message : String(cause);
    const replay = asChosen ? `; "npm run sim -- --rounds --seed ${seed}" replays it` : '';
    super(`Seed ${seed}: ${text}${replay}`, { cause });
    this.name = 'RoundFailure';
    this.seed = seed;
  }
}

export interface RoundOptions {
  readonly plant?: (host: SimHost) => void;
  readonly plan?: (prng: Prng) => RoundPlan;
}

export function runRounds(seed: number, options: RoundOptions = {}): RoundResult {
  const cluster = new RoundCluster(seed, options.plan ?? chooseRoundPlan, options.plant);
  try {
    return cluster.run(RUN_US);
  } catch (error) {
    throw new RoundFailure(seed, error, Object.keys(options).length === 0);
  }
}
