/** What surrounds a simulated machine, and what runs on it, as the others see it. */
import type { FalconLog } from '../../vmm/core/falcon/log.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import type { FalconTimes } from '../../vmm/core/falcon/settings.ts';
import type { ReplicaId } from '../../vmm/core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { Host } from './host.ts';
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

/** Who watches the hosts from outside. */
export interface Observer {
  observe(host: Host): void;
  said(host: Host, bytes: Uint8Array): void;
  acked(host: Host): void;
  injected(host: Host, index: number, digest: number): void;
  died(host: Host, log: FalconLog, durableIndex: number): void;
  lost(host: Host): void;
}

/** What surrounds a host. */
export interface HostWorld {
  readonly queue: EventQueue;
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: readonly Host[];
  readonly regions: Map<number, Region>;
  readonly checker: Observer;
  readonly times: FalconTimes;
  readonly plant: (replica: FalconReplica) => void;
  nextRegionId: number;
  host(id: ReplicaId): Host;
  mayLose(host: Host): boolean;
  processEnded(host: Host): void;
  leaderApplied(host: Host, index: number): void;
  rebased(): void;
}
