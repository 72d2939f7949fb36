/** What an agent's main thread and its consensus worker say to each other. */
import type { ReplicaId } from './core/ids.ts';
import type { DriverTransfer, ExchangeFigures } from './guest/guest-driver.ts';
import type { PeerCard } from './io/transport/transport.ts';
import type { VmPlan } from './vm-plan.ts';

export interface EngineStart {
  readonly plan: VmPlan;
  readonly self: ReplicaId;
  /** Tells this process of the replica from all others. */
  readonly process: string;
  /** -1: this replica does not execute. */
  readonly tapFd: number;
}

/** Main thread to worker; the doorbell is rung after each. */
export type EngineCommand =
  /** Asks for a card for one process of a peer. */
  | {
      readonly type: 'invite';
      readonly request: number;
      readonly id: ReplicaId;
      readonly process: string;
    }
  /** The card that this process of the peer gave. */
  | {
      readonly type: 'connect';
      readonly request: number;
      readonly id: ReplicaId;
      readonly process: string;
      readonly card: PeerCard;
    }
  /** The session with this peer has ended, as its control connection tells. */
  | { readonly type: 'session lost'; readonly id: ReplicaId }
  /** Gives the leadership to another executing replica. */
  | { readonly type: 'hand over'; readonly request: number; readonly to: ReplicaId }
  | { readonly type: 'status'; readonly request: number }
  | { readonly type: 'stop' };

export type Protection = 'PROTECTED' | 'DEGRADED' | 'STARTING' | 'OFF' | 'NO-EXECUTOR' | 'NO-QUORUM';

export interface EngineStatus {
  readonly replica: ReplicaId;
  readonly role: 'leader' | 'backup' | 'standby' | 'candidate';
  readonly state: 'starting' | 'running' | 'logging' | 'waiting for state' | 'guest lost' | 'disk full';
  readonly term: number;
  readonly leader: number | null;
  readonly commitIndex: number;
  readonly appliedIndex: number;
  readonly serving: boolean;
  /** The guest's service has answered once. */
  readonly guestReady: boolean;
  readonly executing: readonly number[];
  readonly virtualMs: number;
  readonly rounds: number;
  readonly framesDelivered: number;
  readonly verifications: number;
  readonly verifiedPages: number;
  /** Comparisons whose roots differed. */
  readonly mismatches: number;
  readonly divergentPages: number;
  /** While it serves: rounds a second, lately. */
  readonly roundsPerSecond: number;
  /** While it serves: for how long no other replica has executed, ms; null: one does. */
  readonly aloneForMs: number | null;
  /** State on its way to another replica. */
  readonly transfer: DriverTransfer | null;
  /** What the last rounds cost that this replica led; null: none, or lockstep. */
  readonly exchange: ExchangeFigures | null;
}

/** What happened, for `gaia-vm events` and the agent's log. */
export interface EngineEvent {
  readonly name: string;
  readonly text: string;
  readonly data: Readonly<Record<string, number | string>>;
}

/** Worker to main thread. */
export type EngineReport =
  /** The wake descriptor is to be rung, as a pipe, after each command. */
  | { readonly type: 'listening'; readonly wakeFd: number }
  /** Null: another process of that peer is still connected. */
  | { readonly type: 'invited'; readonly request: number; readonly card: PeerCard | null }
  | { readonly type: 'connected'; readonly request: number; readonly connected: boolean }
  /** Null: it is under way; else why it was refused. */
  | { readonly type: 'handed over'; readonly request: number; readonly refusal: string | null }
  /** The peer's process has ended. */
  | { readonly type: 'peer gone'; readonly id: ReplicaId }
  /** Who leads has changed; null: nobody known here. */
  | { readonly type: 'leader'; readonly leader: number | null }
  /** The guest has ended by itself, on all replicas alike, and stays so. */
  | { readonly type: 'guest off'; readonly how: 'powered off' | 'crashed' }
  /** The guest is gone; another QEMU may connect. `attachedNs`: when its QEMU was taken up, by CLOCK_MONOTONIC. */
  | { readonly type: 'guest lost'; readonly attachedNs: bigint }
  | { readonly type: 'event'; readonly event: EngineEvent }
  | { readonly type: 'status'; readonly request: number; readonly status: EngineStatus }
  | { readonly type: 'stopped' };
