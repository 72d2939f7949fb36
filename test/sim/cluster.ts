/**
 * A whole cluster under one seed: hosts, network, faults, operator, workload. First the faults run (safety
 * phase), then they stop and what is healed must elect, serve and commit again (liveness phase).
 */
import type { Members } from '../../vmm/core/falcon/membership.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { DEFAULT_TIMES, type FalconTimes } from '../../vmm/core/falcon/settings.ts';
import { toReplicaId, type ReplicaId } from '../../vmm/core/ids.ts';
import { Arena } from './arena.ts';
import { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import { heal, whatIsMissing } from './healing.ts';
import { Host } from './host.ts';
import { HOSTS_MAX, type HostWorld, type Machine } from './host-world.ts';
import { Network } from './network.ts';
import { Operator } from './operator.ts';
import { Prng } from './prng.ts';
import type { Region } from './region.ts';
import { Saboteur } from './saboteur.ts';
import { fail, SafetyChecker } from './safety-checker.ts';

const APPLICATION_RECORD = 16;
/** How long the healed part has, at least, and for each time that the protocol's times are their defaults. */
const LIVENESS_US = 6_000_000;
const LIVENESS_US_PER_SCALE = 4_000_000;
const LIVENESS_STEP_US = 100_000;
/** Bursts of proposals come once in this time. */
const BURST_CYCLE_US = 1_000_000;
const IDLE_INTERVAL_US_MAX = 100_000;

export interface RunResult {
  readonly simulatedUs: number;
  readonly committed: number;
  readonly elections: number;
  readonly acknowledged: number;
  readonly injections: number;
  readonly served: boolean;
  readonly transfers: number;
  readonly rebases: number;
  readonly memberChanges: number;
  readonly events: number;
}

export class Cluster implements HostWorld {
  readonly queue = new EventQueue();
  readonly arena = new Arena();
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: Host[] = [];
  readonly regions = new Map<number, Region>();
  readonly checker: SafetyChecker;
  readonly operator: Operator;
  /** Plants a bug into each new replica: for the tests that show that the simulator bites. */
  readonly plant: (replica: FalconReplica, host: Machine) => void;
  readonly times: FalconTimes;
  nextRegionId = 1;
  readonly #saboteur: Saboteur;
  #nextRequest = 1;
  #acknowledged = 0;
  #rebases = 0;
  #healed = false;

  constructor(
    seed: number,
    plan: (prng: Prng) => FaultPlan,
    plant: (replica: FalconReplica, host: Machine) => void,
  ) {
    this.prng = new Prng(seed);
    this.plan = plan(this.prng);
    this.plant = plant;
    this.times = timesOf(this.plan);
    this.network = new Network(this.queue, this.prng, this.plan, HOSTS_MAX);
    this.checker = new SafetyChecker(this);
    this.operator = new Operator(this);
    this.#saboteur = new Saboteur(this);
    const voters = Array.from({ length: this.plan.replicas }, (_, id) => toReplicaId(id));
    for (const id of voters) this.#newHost({ voters, nonVoters: [] }, id < Math.max(2, voters.length - 1));
  }

  #newHost(members: Members, executes: boolean): Host {
    const { prng } = this;
    const rate = 1 + (prng.fraction() * 2 - 1) * this.plan.clockSkew;
    const id = toReplicaId(this.hosts.length);
    const host = new Host(this, id, executes, rate, prng.between(0, 1_000_000_000), members);
    this.hosts.push(host);
    return host;
  }

  /** A machine that was not there before, under an id that nobody had. */
  addHost(members: Members): Host {
    const host = this.#newHost(members, this.prng.chance(0.5));
    this.queue.after(this.prng.between(0, 100_000), () => this.boot(host));
    return host;
  }

  host(id: ReplicaId): Host {
    const host = this.hosts[id];
    if (host === undefined) throw new RangeError(`There is no replica ${id}`);
    return host;
  }

  run(faultUs: number): RunResult {
    for (const host of this.hosts) this.queue.after(this.prng.between(0, 5_000), () => this.boot(host));
    this.#proposeOn();
    this.operator.begin();
    this.#saboteur.begin();
    this.queue.runUntil(faultUs);
    this.#healed = true;
    this.#saboteur.end();
    heal(this);
    const served = this.#awaitLiveness(faultUs + LIVENESS_US + this.plan.timeScale * LIVENESS_US_PER_SCALE);
    return {
      simulatedUs: this.queue.nowUs,
      committed: this.checker.committedCount,
      elections: this.checker.elections,
      acknowledged: this.#acknowledged,
      injections: this.checker.injections,
      transfers: this.operator.transfers,
      memberChanges: this.operator.memberChanges,
      rebases: this.#rebases,
      events: this.queue.events,
      served,
    };
  }

  /** Runs on until the healed part does its work again; fails when the time for that is over. */
  #awaitLiveness(endUs: number): boolean {
    const { committedCount } = this.checker;
    for (;;) {
      const missing = whatIsMissing(this.hosts, this.checker.committedCount, committedCount);
      if (missing === undefined) break;
      if (this.queue.nowUs >= endUs) fail(missing);
      this.queue.runUntil(this.queue.nowUs + LIVENESS_STEP_US);
    }
    return this.hosts.some((host) => host.replica?.mayServe === true);
  }

  boot(host: Host): void {
    if (!host.running && !host.gone && !(this.#healed && host.leftBehind)) host.start();
  }

  #proposeOn(): void {
    const { proposeEveryUs, proposeDuty } = this.plan;
    const burst = this.queue.nowUs % BURST_CYCLE_US < proposeDuty * BURST_CYCLE_US;
    const intervalUs = burst ? proposeEveryUs : Math.min(50 * proposeEveryUs, IDLE_INTERVAL_US_MAX);
    this.queue.after(this.prng.between(1, 2 * intervalUs), () => {
      this.#propose();
      this.#proposeOn();
    });
  }

  /** Sent to every replica that believes it leads: a deposed one must do no harm. */
  #propose(): void {
    for (const host of this.hosts) {
      const { replica } = host;
      if (replica?.role !== 'leader' || this.queue.nowUs < host.pausedUntilUs) continue;
      const payload = new Uint8Array(this.prng.between(4, this.plan.payloadBytesMax));
      new DataView(payload.buffer).setUint32(0, this.#nextRequest, true);
      const index = replica.propose(APPLICATION_RECORD, 1, payload);
      if (typeof index !== 'number') continue;
      this.#nextRequest++;
      this.checker.proposed(host);
      host.step();
    }
  }

  rebased(): void {
    this.#rebases++;
  }

  leaderApplied(host: Machine, index: number): void {
    this.checker.acknowledged(index, host);
    this.#acknowledged++;
  }

  processEnded(host: Machine): void {
    if (this.plan.toldOfDeath) {
      for (const other of this.hosts) {
        if (other !== host) this.queue.after(this.prng.between(5, 500), () => other.peerEnded(host.id));
      }
    }
    this.queue.after(this.prng.between(1_000, this.plan.restartUsMax), () => this.boot(this.host(host.id)));
  }

  /**
   * Whether the log of this replica may be lost: only a minority at a time of every list of members that is
   * about, until those are level again. Nobody promises to survive more.
   */
  mayLose(host: Machine): boolean {
    return this.hosts.every(({ members: { voters } }) => {
      if (!voters.includes(host.id)) return true;
      const lost = voters.filter((id) => id !== host.id && this.hosts[id]?.isLost !== false).length;
      return (lost + 1) * 2 < voters.length;
    });
  }
}

function timesOf(plan: FaultPlan): FalconTimes {
  const scaled = Object.entries(DEFAULT_TIMES).map(([name, value]) => [
    name,
    (value as number) * plan.timeScale,
  ]);
  const times = Object.fromEntries(scaled) as FalconTimes;
  const electionSpreadUs = times.silenceUsMin * (plan.timeoutSpread - 1);
  const heartbeatIntervalUs = times.heartbeatIntervalUs * plan.heartbeatStride;
  return { ...times, suspicion: DEFAULT_TIMES.suspicion, electionSpreadUs, heartbeatIntervalUs };
}
