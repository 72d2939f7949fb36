/** What may go wrong in one run: chosen by its seed, so that over many seeds every mixture comes up. */
import type { Prng } from './prng.ts';

export interface FaultPlan {
  readonly replicas: number;
  readonly durability: 'disk' | 'memory';
  /** Probability that a control message is lost, doubled. */
  readonly messageLoss: number;
  readonly messageDouble: number;
  readonly messageDelayUsMax: number;
  /** Probability that a control message takes a hundred times as long. */
  readonly messageStraggles: number;
  readonly putDelayUsMax: number;
  /** Probability that a put is reported done but never arrives, is torn for a while, or arrives harmed. */
  readonly putLost: number;
  readonly putTorn: number;
  readonly putHarmed: number;
  readonly fsyncUsMax: number;
  readonly fsyncFails: number;
  /** Mean time between two faults of a kind over the whole cluster; 0: never. */
  readonly crashEveryUs: number;
  readonly pauseEveryUs: number;
  readonly partitionEveryUs: number;
  readonly slowDiskEveryUs: number;
  readonly transferEveryUs: number;
  /** Probability that a replica dies between two of the shell's steps. */
  readonly dieMidStep: number;
  /** Of crashes, how many take the guest along. */
  readonly crashTakesGuest: number;
  /** The end of a process is told to the others at once (one machine), or not at all (several). */
  readonly toldOfDeath: boolean;
  /** Clocks run up to this much faster or slower. */
  readonly clockSkew: number;
  readonly proposeEveryUs: number;
  readonly payloadBytesMax: number;
  /** How long a replica stays away after a crash, at most. */
  readonly restartUsMax: number;
  /** All times of the protocol are this many times their defaults. */
  readonly timeScale: number;
  /** The longest election timeout as a multiple of the shortest: the wider, the longer a candidate asks. */
  readonly timeoutSpread: number;
  /** Records that fit into one peer's region. */
  readonly ringSlots: number;
  /** A small log makes dropping, refusal and catch-up come up. */
  readonly logStorageBytes: number;
}

function maybe(prng: Prng, probability: number, low: number, high: number): number {
  const value = prng.between(low, high);
  return prng.chance(probability) ? value : 0;
}

export function chooseFaults(prng: Prng): FaultPlan {
  const durability = prng.chance(0.7) ? 'disk' : 'memory';
  const storm = prng.chance(0.3) ? 0.1 : 1;
  const payloadBytesMax = prng.pick([16, 200, 3000]);
  return {
    replicas: prng.pick([3, 3, 3, 5, 7]),
    durability,
    messageLoss: prng.chance(0.5) ? prng.fraction() * 0.3 : 0,
    messageDouble: prng.chance(0.5) ? prng.fraction() * 0.3 : 0,
    messageDelayUsMax: prng.pick([100, 2_000, 30_000]),
    messageStraggles: prng.chance(0.3) ? 0.03 : 0,
    putDelayUsMax: prng.pick([5, 500, 10_000]),
    putLost: prng.chance(0.3) ? 0.01 : 0,
    putTorn: prng.chance(0.4) ? 0.1 : 0,
    putHarmed: prng.chance(0.3) ? 0.01 : 0,
    fsyncUsMax: prng.pick([100, 2_000, 20_000]),
    fsyncFails: prng.chance(0.15) ? 0.002 : 0,
    crashEveryUs: maybe(prng, 0.7, 200_000, 2_000_000) * storm,
    pauseEveryUs: maybe(prng, 0.5, 200_000, 2_000_000),
    partitionEveryUs: maybe(prng, 0.6, 200_000, 2_000_000) * storm,
    slowDiskEveryUs: maybe(prng, 0.3, 300_000, 2_000_000),
    transferEveryUs: maybe(prng, 0.4, 200_000, 1_000_000),
    dieMidStep: prng.chance(0.3) ? 0.0002 : 0,
    crashTakesGuest: prng.pick([0, 0.1, 0.5]),
    toldOfDeath: prng.chance(0.5),
    clockSkew: prng.chance(0.4) ? 0.1 : 0,
    proposeEveryUs: prng.pick([500, 3_000, 20_000]),
    payloadBytesMax,
    restartUsMax: prng.pick([20_000, 500_000]),
    timeScale: prng.pick([1, 1, 3]),
    timeoutSpread: prng.pick([1.1, 1.5, 4]),
    ringSlots: prng.pick([1, 4, 64]),
    logStorageBytes: prng.pick([32 * 1024, 1024 * 1024]),
  };
}
