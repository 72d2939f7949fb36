/** What surrounds a simulated machine, and what runs on it, as the others see it. */
import type { FalconLog } from '../../vmm/core/falcon/log.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import type { FalconTimes } from '../../vmm/core/falcon/settings.ts';
import type { Members } from '../../vmm/core/falcon/membership.ts';
import type { ReplicaId } from '../../vmm/core/ids.ts';
import type { Arena } from './arena.ts';
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { DiskBase, SimulatedDisk } from './disk.ts';
import type { Network } from './network.ts';
import type { Prng } from './prng.ts';
import type { Region } from './region.ts';

/** What a guest is, to the protocol: how many committed inputs it has executed, and which. */
export interface Guest {
  readonly incarnation: number;
  valid: boolean;
  appliedIndex: number;
  digest: number;
}

/** Bytes of one record at most, and machines in one run at most, those that are gone included. */
export const RECORD_BYTES_MAX = 4096;
export const HOSTS_MAX = 20;
export const CLUSTER_ID = 0x1234_5678_9abc_def0n;

/** A simulated machine, as the others and the checkers see it. */
export interface Machine {
  readonly id: ReplicaId;
  readonly disk: SimulatedDisk;
  readonly guest: Guest | undefined;
  readonly replica: FalconReplica | undefined;
  readonly running: boolean;
  /** By the log it has, or had when its process ended. */
  readonly members: Members;
  /** What the operator told this replica when it was made. */
  readonly firstBase: DiskBase;
  /** The machine is gone for good, or was switched off after the replica was removed. */
  readonly gone: boolean;
  /** Its log was lost, and it is not level again. */
  readonly logLost: boolean;
  /** A planted bug: what leaders of the past still put is read, too. */
  readsOldRegions: boolean;
  /** By replica: where each one's acks for this one lie. */
  readonly ackMemory: (Uint8Array | undefined)[];
  step(): void;
  receive(from: ReplicaId, bytes: Uint8Array): void;
  arrive(action: () => void): void;
}

/** Who watches the hosts from outside. */
export interface Observer {
  observe(host: Machine): void;
  said(host: Machine, bytes: Uint8Array): void;
  acked(host: Machine): void;
  injected(host: Machine, index: number, digest: number): void;
  died(host: Machine, log: FalconLog, durableIndex: number): void;
  lost(host: Machine): void;
}

/** What surrounds a host. */
export interface HostWorld {
  readonly queue: EventQueue;
  readonly arena: Arena;
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: readonly Machine[];
  readonly regions: Map<number, Region>;
  readonly checker: Observer;
  readonly times: FalconTimes;
  readonly plant: (replica: FalconReplica, host: Machine) => void;
  nextRegionId: number;
  host(id: ReplicaId): Machine;
  mayLose(host: Machine): boolean;
  processEnded(host: Machine): void;
  leaderApplied(host: Machine, index: number): void;
  rebased(): void;
}
