/** What an agent's main thread and its consensus worker say to each other. */
import type { ReplicaId } from './core/ids.ts';
import type { PeerCard } from './io/transport/transport.ts';
import type { VmPlan } from './vm-plan.ts';

export interface EngineStart {
  readonly plan: VmPlan;
  readonly self: ReplicaId;
  /** -1: this replica does not execute. */
  readonly tapFd: number;
}

/** Main thread to worker; the doorbell is rung after each. */
export type EngineCommand =
  | { readonly type: 'peer'; readonly id: ReplicaId; readonly card: PeerCard }
  | { readonly type: 'guest ready' }
  | { readonly type: 'status'; readonly request: number }
  | { readonly type: 'stop' };

export type Protection = 'PROTECTED' | 'DEGRADED' | 'STARTING' | 'NO-EXECUTOR' | 'NO-QUORUM';

export interface EngineStatus {
  readonly replica: ReplicaId;
  readonly role: 'leader' | 'backup' | 'standby' | 'candidate';
  readonly state: 'starting' | 'running' | 'logging' | 'waiting for state' | 'guest lost';
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
}

/** What happened, for `gaia-vm events` and the agent's log. */
export interface EngineEvent {
  readonly name: string;
  readonly text: string;
  readonly data: Readonly<Record<string, number | string>>;
}

/** Worker to main thread. */
export type EngineReport =
  | {
      readonly type: 'reachable';
      /** By peer: what it needs to reach this replica. */
      readonly cards: Readonly<Record<number, PeerCard>>;
      /** To be rung, as a pipe, after each command. */
      readonly wakeFd: number;
    }
  | { readonly type: 'listening' }
  | { readonly type: 'event'; readonly event: EngineEvent }
  | { readonly type: 'status'; readonly request: number; readonly status: EngineStatus }
  | { readonly type: 'stopped' };
