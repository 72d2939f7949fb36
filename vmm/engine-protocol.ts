/** What an agent's main thread and its consensus worker say to each other. */
import type { ReplicaId } from './core/ids.ts';
import type { ShmAddress } from './io/transport/shm.ts';
import type { VmPlan } from './vm-plan.ts';

export interface EngineStart {
  readonly plan: VmPlan;
  readonly self: ReplicaId;
  /** -1: this replica does not execute. */
  readonly tapFd: number;
}

/** Main thread to worker; the doorbell is rung after each. */
export type EngineCommand =
  | { readonly type: 'peer'; readonly id: ReplicaId; readonly address: ShmAddress }
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
  | { readonly type: 'address'; readonly address: ShmAddress }
  | { readonly type: 'listening' }
  | { readonly type: 'event'; readonly event: EngineEvent }
  | { readonly type: 'status'; readonly request: number; readonly status: EngineStatus }
  | { readonly type: 'stopped' };
