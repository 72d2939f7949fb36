/** What the round loop works with: injected, so that the engine and the simulator run the same decisions. */
import type { FalconReplica } from '../falcon/replica.ts';
import type { LogIndex, ReplicaId } from '../ids.ts';
import type { RoundExchange } from './round-exchange.ts';
import type { ExchangeOutcome } from './round-report.ts';

/**
 * `vsmr`: both guests run freely and are made equal after each round. `lockstep`: both are equal by construction,
 * which is compared. `checkpoint`: only the leader's guest runs, the backup gets what it changed.
 */
export type ExecutionMode = 'vsmr' | 'lockstep' | 'checkpoint';

/** One guest, run by records of the log. */
export interface RoundRunner {
  /** Invariant: the guest's state is that after exactly the records up to here. */
  readonly appliedIndex: LogIndex;
  /** Between two rounds. */
  readonly stands: boolean;
  readonly serving: boolean;
  /**
   * Begins the committed round at `index`, or does what a record of the guest's end says. `release`: output may leave
   * at once.
   */
  execute(index: LogIndex, release: boolean): void;
  /** Once per round: true when it has ended. */
  takeEnd(): boolean;
  /** The record at `index` changes nothing in the guest. */
  passOver(index: LogIndex): void;
  /** The guest was made equal to one that stands after `index`. */
  adopted(index: LogIndex): void;
  /** Input from clients comes in, and what is held goes out. */
  beginServing(): void;
  /** No output from now on, and no input. */
  endServing(): void;
  /** Everything held so far goes out. Only what serves may do that. */
  releaseHeld(): void;
}

export const RoundMail = {
  /** A message of the exchange. */
  exchange: 'exchange',
  /** Backup to leader: executed all rounds up to this index. u64. */
  executed: 'executed',
  /** To the leader: this guest, of this incarnation, waits to be made equal. u64. */
  wanted: 'wanted',
  /** To the leader: the guest of this incarnation has ended, and its agent goes on. u64. */
  lost: 'lost',
} as const;
export type RoundMail = (typeof RoundMail)[keyof typeof RoundMail];

export interface RoundWorld {
  /** False: no room now. What was taken may get lost all the same. */
  send(to: ReplicaId, mail: RoundMail, bytes: Uint8Array): boolean;
  /** Proposes the next round, or a comparison, if one is due. True when it did. */
  propose(nowUs: number): boolean;
  /** While the newest round runs: proposes the one behind it, if there is reason to. True when it did. */
  proposeAhead(nowUs: number): boolean;
  /** The guest has reset or ended itself, by the committed record at `index`. */
  guestEnded(index: LogIndex): void;
  /** A guest that is still starting is given to nobody. */
  readonly transferable: boolean;
  /** An exchange ended. */
  exchanged(leads: boolean, outcome: ExchangeOutcome): void;
  event(name: RoundEvent, replica: ReplicaId, index: number): void;
}

export type RoundEvent =
  | 'serving'
  | 'serving-ended'
  | 'left-behind'
  | 'state-loaded'
  | 'state-sent'
  | 'protected'
  | 'degraded'
  | 'transfer-given-up';

interface RoundTimes {
  /** A partner that makes no progress for this long leaves the executing set. */
  readonly stallUs: number;
  /** A guest that the log does not name for this long asks for state anew. */
  readonly leftBehindUs: number;
  readonly askAgainUs: number;
  /** A backup that executes says how far it is at least this often. */
  readonly tellAgainUs: number;
}

export interface RoundParts {
  readonly mode: ExecutionMode;
  readonly self: ReplicaId;
  /** Of this replica's guest: its QEMU process. */
  readonly incarnation: number;
  readonly falcon: FalconReplica;
  readonly guest: RoundRunner;
  readonly exchange: RoundExchange;
  readonly world: RoundWorld;
  readonly times: RoundTimes;
  /** Tests: after each round all memory is compared, to find what no set holds. */
  readonly scans?: boolean;
}
