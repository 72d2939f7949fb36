/** What a replica is told when it starts. Times are for liveness only; no promise rests on one. */
import type { LogIndex, ReplicaId, Term } from '../ids.ts';
import type { Crc32c } from './crc32c.ts';
import type { ExecutingSet } from './executing-set.ts';
import type { CopyBytes, LogLimits } from './log.ts';
import type { OlderRecords } from './older-records.ts';

export interface FalconTimes {
  /** A leader that makes progress says so this often. */
  readonly heartbeatIntervalUs: number;
  /**
   * A backup takes its leader for gone after a silence that is improbable by the intervals heard before
   * (silence-detector.ts), but never before the one nor later than the other of these two.
   */
  readonly silenceUsMin: number;
  readonly silenceUsMax: number;
  /** How improbable: the negative decimal exponent of the probability (phi). */
  readonly suspicion: number;
  /** It then stands after a further random time up to this, so that two do not stand together. */
  readonly electionSpreadUs: number;
  /** Who may not execute waits this much longer, so that executing members stand first. */
  readonly standbyExtraUs: number;
  /** A refused or unanswered pre-vote is asked again after this time, plus up to as much again by chance. */
  readonly preVoteRetryUs: number;
  /** A leader that a majority has not echoed for this long, and for improbably long, steps down. */
  readonly stepDownUs: number;
  /** A leadership transfer that has not come about after this time is given up. */
  readonly transferTimeoutUs: number;
}

export const DEFAULT_TIMES: FalconTimes = {
  heartbeatIntervalUs: 5_000,
  silenceUsMin: 50_000,
  silenceUsMax: 600_000,
  suspicion: 8,
  electionSpreadUs: 12_000,
  standbyExtraUs: 40_000,
  preVoteRetryUs: 8_000,
  stepDownUs: 90_000,
  transferTimeoutUs: 250_000,
};

export const DEFAULT_LOG_LIMITS: LogLimits = {
  storageBytes: 64 * 1024 * 1024,
  recordsMax: 262_144,
  recordBytesMax: 2 * 1024 * 1024,
};

/** What survives a crash of the replica, made durable by the shell before anything that depends on it. */
export interface HardState {
  readonly clusterId: bigint;
  readonly term: Term;
  /** `NO_REPLICA` when no vote was given in `term`. */
  readonly votedFor: ReplicaId;
}

/** Where an empty log begins: before record 1, or behind a checkpoint. */
export interface LogBase {
  readonly index: LogIndex;
  readonly term: Term;
  readonly checksum: number;
  /** The newest executing set at `index`. */
  readonly executing: ExecutingSet;
}

export interface FalconSettings {
  readonly self: ReplicaId;
  /**
   * Who has a vote at `base`. A replica that is to be added names the voters that it is told of and not itself:
   * it asks for nothing until a leader has added it.
   */
  readonly voters: readonly ReplicaId[];
  /** Who else gets the log at `base`; none when left out. */
  readonly nonVoters?: readonly ReplicaId[];
  /** Number of this process among those of this replica, higher than all before it: unsigned 32 bits, persisted. */
  readonly processNumber: number;
  readonly hardState: HardState;
  readonly base: LogBase;
  /** `memory`: a record counts as held once it lies in memory. `disk`: once the shell says `durable`. */
  readonly durability: 'disk' | 'memory';
  /** This replica may have acknowledged records that it no longer has: it comes back by the way of rejoin.ts. */
  readonly logLost?: boolean;
  /** The durable log, to catch peers up from; left out: what memory has dropped is gone. */
  readonly olderRecords?: OlderRecords;
  readonly times: FalconTimes;
  readonly logLimits: LogLimits;
  readonly crc32c: Crc32c;
  /** Left out: by a way that leaves garbage behind. */
  readonly copyBytes?: CopyBytes;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}
