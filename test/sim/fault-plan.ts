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
  /** Its head arrives, its rest never does; what was put before at the same place comes once more, late. */
  readonly putCut: number;
  readonly putStale: number;
  /** It arrives, and is reported as failed. */
  readonly putDenied: number;
  /** Puts reach a target only while its process runs on (tcp), not at any time (memory). */
  readonly putsNeedProgress: boolean;
  /** Probability that the writer changes bytes while they are being checked. */
  readonly bytesChange: number;
  readonly fsyncUsMax: number;
  readonly fsyncFails: number;
  /** Mean time between two faults of a kind over the whole cluster; 0: never. */
  readonly crashEveryUs: number;
  readonly pauseEveryUs: number;
  readonly partitionEveryUs: number;
  readonly slowDiskEveryUs: number;
  readonly transferEveryUs: number;
  /** A link that still carries everything, much later. */
  readonly clogEveryUs: number;
  /** A replica's process ends and its log is gone; term and vote are not. */
  readonly loseLogEveryUs: number;
  /** A replica's machine is gone for good. */
  readonly destroyEveryUs: number;
  /** A synced bit turns over in a log on disk. */
  readonly rotEveryUs: number;
  /** Probability that a power cut leaves half a record. */
  readonly tornTail: number;
  /** A checkpoint lets the durable log of one replica begin later. */
  readonly checkpointEveryUs: number;
  /** The operator adds, promotes and removes replicas. */
  readonly membersEveryUs: number;
  /** In the end only a majority is healed: what is wrong with the others stays so. */
  readonly healsMajorityOnly: boolean;
  /** Probability that a replica dies between two of the shell's steps. */
  readonly dieMidStep: number;
  /** Of crashes, how many take the guest along. */
  readonly crashTakesGuest: number;
  /** The end of a process is told to the others at once (one machine), or not at all (several). */
  readonly toldOfDeath: boolean;
  /** Clocks run up to this much faster or slower. */
  readonly clockSkew: number;
  readonly proposeEveryUs: number;
  /** Part of the time in which records are proposed so often; in the rest, one in fifty. */
  readonly proposeDuty: number;
  readonly payloadBytesMax: number;
  /** How long a replica stays away after a crash, at most. */
  readonly restartUsMax: number;
  /** All times of the protocol are this many times their defaults. */
  readonly timeScale: number;
  /** The heartbeat comes this many times as seldom; the rest of the time it would only show that it comes. */
  readonly heartbeatStride: number;
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
    putCut: prng.chance(0.2) ? 0.01 : 0,
    putStale: prng.chance(0.3) ? 0.02 : 0,
    putDenied: prng.chance(0.2) ? 0.005 : 0,
    putsNeedProgress: prng.chance(0.5),
    bytesChange: prng.chance(0.2) ? 0.01 : 0,
    fsyncUsMax: prng.pick([100, 2_000, 20_000]),
    fsyncFails: prng.chance(0.15) ? 0.002 : 0,
    crashEveryUs: maybe(prng, 0.7, 200_000, 2_000_000) * storm,
    pauseEveryUs: maybe(prng, 0.5, 200_000, 2_000_000),
    partitionEveryUs: maybe(prng, 0.6, 200_000, 2_000_000) * storm,
    slowDiskEveryUs: maybe(prng, 0.3, 300_000, 2_000_000),
    transferEveryUs: maybe(prng, 0.4, 200_000, 1_000_000),
    clogEveryUs: maybe(prng, 0.3, 200_000, 2_000_000),
    loseLogEveryUs: maybe(prng, 0.25, 300_000, 2_000_000),
    destroyEveryUs: maybe(prng, 0.2, 500_000, 3_000_000),
    rotEveryUs: maybe(prng, 0.2, 300_000, 2_000_000),
    tornTail: prng.chance(0.5) ? 0.5 : 0,
    checkpointEveryUs: maybe(prng, 0.4, 100_000, 1_000_000),
    membersEveryUs: maybe(prng, 0.5, 20_000, 400_000),
    healsMajorityOnly: prng.chance(0.4),
    dieMidStep: prng.chance(0.3) ? 0.0002 : 0,
    crashTakesGuest: prng.pick([0, 0.1, 0.5]),
    toldOfDeath: prng.chance(0.5),
    clockSkew: prng.chance(0.4) ? 0.1 : 0,
    proposeEveryUs: prng.pick([500, 3_000, 20_000]),
    proposeDuty: prng.pick([0.1, 0.3]),
    payloadBytesMax,
    restartUsMax: prng.pick([20_000, 500_000]),
    timeScale: prng.pick([1, 2, 4]),
    heartbeatStride: prng.pick([1, 3, 3]),
    timeoutSpread: prng.pick([1.1, 1.5, 4]),
    ringSlots: prng.pick([1, 4, 64]),
    logStorageBytes: prng.pick([32 * 1024, 256 * 1024]),
  };
}
