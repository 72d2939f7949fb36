/** What the parts of the round simulator know of each other. */
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import type { FalconTimes } from '../../vmm/core/falcon/settings.ts';
import type { ReplicaId } from '../../vmm/core/ids.ts';
import type { RoundExchange } from '../../vmm/core/rounds/round-exchange.ts';
import type { RoundLoop } from '../../vmm/core/rounds/round-loop.ts';
import type { RoundRunner } from '../../vmm/core/rounds/round-parts.ts';
import type { EventQueue } from './event-queue.ts';
import type { Prng } from './prng.ts';
import type { Frame, MomentRegistry, RoundGuest } from './round-guest.ts';
import type { RoundNetwork } from './round-network.ts';
import type { RoundPlan } from './round-plan.ts';

/** One machine, seen by the others, by the checkers and by planted bugs. */
export interface SimHost {
  readonly id: ReplicaId;
  readonly world: RoundWorldOfHosts;
  /** Counts the agents of this machine. */
  readonly life: number;
  readonly nowUs: number;
  readonly replica: FalconReplica | undefined;
  readonly loop: RoundLoop | undefined;
  readonly exchange: RoundExchange | undefined;
  readonly runner: RoundRunner | undefined;
  readonly guest: RoundGuest | undefined;
  readonly incarnation: number;
  readonly disk: { readonly records: readonly Uint8Array[] };
  readonly acks: Map<number, Uint8Array>;
  /** A planted bug: a guest that an agent finds is believed to be what it was. */
  trustsWhatItFinds: boolean;
  step(): void;
  /** What came while the machine stood still is taken up when it goes on. */
  whenAwake(action: () => void): void;
  guarded(action: () => void): void;
}

/** Who watches the hosts from outside. */
export interface RoundObserver {
  observe(host: SimHost): void;
  adopted(host: SimHost, index: number): void;
  proposed(host: SimHost): void;
  injected(host: SimHost, index: number): void;
  serves(host: SimHost): void;
  released(host: SimHost, frame: Frame): void;
  exchanged(host: SimHost, leads: boolean, type: string): void;
}

/** What surrounds a host. */
export interface RoundWorldOfHosts {
  readonly queue: EventQueue;
  readonly prng: Prng;
  readonly plan: RoundPlan;
  readonly network: RoundNetwork;
  readonly voters: readonly ReplicaId[];
  readonly checker: RoundObserver;
  readonly times: FalconTimes;
  readonly registry: MomentRegistry;
  /** Plants a bug into a host whose agent has just started. */
  readonly plant: (host: SimHost) => void;
  host(id: ReplicaId): SimHost;
  nameRegion(region: object): number;
  regionNamed(name: number): object | undefined;
  nextRequest(): number;
  mayDie(host: SimHost): boolean;
  processEnded(host: SimHost): void;
}
