/** One run of one seed, and how its end is told. */
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { Cluster, type RunResult } from './cluster.ts';
import { chooseFaults, type FaultPlan } from './fault-plan.ts';
import type { Machine } from './host-world.ts';
import type { Prng } from './prng.ts';

const RUN_US = 4_000_000;

export class SwarmFailure extends Error {
  readonly seed: number;

  /** `asChosen`: the seed alone says what was run. */
  constructor(seed: number, cause: unknown, asChosen: boolean) {
    const text = cause instanceof Error ? cause.message : String(cause);
    const replay = asChosen ? `; "npm run sim -- --seed ${seed}" replays it` : '';
    super(`Seed ${seed}: ${text}${replay}`, { cause });
    this.name = 'SwarmFailure';
    this.seed = seed;
  }
}

export interface SwarmOptions {
  readonly plant?: (replica: FalconReplica, host: Machine) => void;
  readonly plan?: (prng: Prng) => FaultPlan;
  readonly faultUs?: number;
}

export function runSeed(seed: number, options: SwarmOptions = {}): RunResult {
  const cluster = new Cluster(seed, options.plan ?? chooseFaults, options.plant ?? (() => undefined));
  try {
    return cluster.run(options.faultUs ?? RUN_US);
  } catch (error) {
    throw new SwarmFailure(seed, error, Object.keys(options).length === 0);
  }
}
