/** What goes wrong in one run of the round simulator: chosen by its seed. */
import type { ExecutionMode } from '../../vmm/core/rounds/round-parts.ts';
import type { Prng } from './prng.ts';

export interface RoundPlan {
  readonly mode: ExecutionMode;
  readonly pageCount: number;
  /** All three replicas have a guest, else the third stands by. */
  readonly thirdGuest: boolean;
  readonly messageLoss: number;
  readonly messageDouble: number;
  readonly messageDelayUsMax: number;
  readonly messageStraggles: number;
  readonly putDelayUsMax: number;
  readonly roundUsMax: number;
  readonly proposeIdleUsMax: number;
  /** Probability that an agent dies before a store of its exchange, or between two steps. */
  readonly dieAtStore: number;
  readonly dieMidStep: number;
  /** Mean time between two faults of a kind; 0: never. */
  readonly crashEveryUs: number;
  readonly pauseEveryUs: number;
  readonly partitionEveryUs: number;
  readonly transferEveryUs: number;
  readonly crashTakesGuest: number;
  readonly toldOfDeath: boolean;
  readonly restartUsMax: number;
  readonly partBytes: number;
  /** Loading a state writes pages by itself. */
  readonly loadWrites: number;
  /** Lockstep: a round diverges although it must not. */
  readonly lockstepSlips: number;
  /** A round may be agreed on while the one before it runs. */
  readonly proposesAhead: boolean;
}

export function chooseRoundPlan(prng: Prng): RoundPlan {
  const maybe = (probability: number, low: number, high: number): number => {
    const value = prng.between(low, high);
    return prng.chance(probability) ? value : 0;
  };
  return {
    mode: prng.pick(['vsmr', 'vsmr', 'vsmr', 'lockstep', 'checkpoint']),
    pageCount: prng.pick([8, 40, 70]),
    thirdGuest: prng.chance(0.3),
    messageLoss: prng.chance(0.6) ? prng.fraction() * 0.2 : 0,
    messageDouble: prng.chance(0.5) ? prng.fraction() * 0.2 : 0,
    messageDelayUsMax: prng.pick([20, 300, 5_000]),
    messageStraggles: prng.chance(0.4) ? 0.02 : 0,
    putDelayUsMax: prng.pick([5, 300, 3_000]),
    roundUsMax: prng.pick([200, 3_000]),
    proposeIdleUsMax: prng.pick([1_000, 10_000]),
    dieAtStore: prng.chance(0.4) ? 0.0005 : 0,
    dieMidStep: prng.chance(0.3) ? 0.0002 : 0,
    crashEveryUs: maybe(0.7, 100_000, 800_000),
    pauseEveryUs: maybe(0.5, 100_000, 1_000_000),
    partitionEveryUs: maybe(0.6, 100_000, 1_000_000),
    transferEveryUs: maybe(0.4, 100_000, 600_000),
    crashTakesGuest: prng.pick([0, 0.5, 1]),
    toldOfDeath: prng.chance(0.5),
    restartUsMax: prng.pick([20_000, 300_000]),
    partBytes: prng.pick([48, 200, 4_096]),
    loadWrites: prng.chance(0.2) ? 0.3 : 0,
    lockstepSlips: prng.chance(0.3) ? 0.05 : 0,
    proposesAhead: prng.chance(0.5),
  };
}

/** Nothing goes wrong any more. */
export function calmRounds(plan: RoundPlan): RoundPlan {
  return {
    ...plan,
    messageLoss: 0,
    messageDouble: 0,
    messageDelayUsMax: 50,
    messageStraggles: 0,
    putDelayUsMax: 10,
    dieAtStore: 0,
    dieMidStep: 0,
    lockstepSlips: 0,
  };
}
