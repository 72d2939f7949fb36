/**
 * A whole cluster under one seed: hosts, network, faults, workload. First the faults run (safety phase),
 * then they stop and the healed cluster must elect, serve and commit again (liveness phase).
 */
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { DEFAULT_TIMES, type FalconTimes } from '../../vmm/core/falcon/settings.ts';
import { toReplicaId, type ReplicaId } from '../../vmm/core/ids.ts';
import { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import { Host, type HostWorld, type Region } from './host.ts';
import { calm, Network } from './network.ts';
import { Prng } from './prng.ts';
import { fail, SafetyChecker } from './safety-checker.ts';

const APPLICATION_RECORD = 16;
const STATE_TRANSFER_US = 30_000;
const LIVENESS_US = 6_000_000;
const LIVENESS_STEP_US = 100_000;
/** Records that a backup may be behind in a cluster that is well. */
const LAG_MAX = 200;

export interface RunResult {
  readonly simulatedUs: number;
  readonly committed: number;
  readonly elections: number;
  readonly acknowledged: number;
  readonly injections: number;
  readonly served: boolean;
  readonly transfers: number;
  readonly rebases: number;
}

export class Cluster implements HostWorld {
  readonly queue = new EventQueue();
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: readonly Host[];
  readonly voters: readonly ReplicaId[];
  readonly regions = new Map<number, Region>();
  readonly checker: SafetyChecker;
  /** Plants a bug into each new replica: for the tests that show that the simulator bites. */
  readonly plant: (replica: FalconReplica) => void;
  readonly times: FalconTimes;
  nextRegionId = 1;
  #nextRequest = 1;
  #acknowledged = 0;
  #transfers = 0;
  #rebases = 0;
  #faults = true;
  readonly #reprotecting = new Set<ReplicaId>();

  constructor(seed: number, plan: (prng: Prng) => FaultPlan, plant: (replica: FalconReplica) => void) {
    this.prng = new Prng(seed);
    this.plan = plan(this.prng);
    this.plant = plant;
    this.times = timesOf(this.plan);
    this.network = new Network(this.queue, this.prng, this.plan);
    this.checker = new SafetyChecker(this, this.plan.replicas);
    this.voters = Array.from({ length: this.plan.replicas }, (_, id) => toReplicaId(id));
    const executors = Math.max(2, this.plan.replicas - 1);
    this.hosts = this.voters.map((id) => {
      const rate = 1 + (this.prng.fraction() * 2 - 1) * this.plan.clockSkew;
      return new Host(this, id, id < executors, rate, this.prng.between(0, 1_000_000_000));
    });
  }

  host(id: ReplicaId): Host {
    const host = this.hosts[id];
    if (host === undefined) throw new RangeError(`There is no replica ${id}`);
    return host;
  }

  run(faultUs: number): RunResult {
    for (const host of this.hosts) this.queue.after(this.prng.between(0, 5_000), () => this.boot(host));
    this.#every(this.plan.proposeEveryUs, () => this.#propose());
    this.#every(50_000, () => this.reprotect());
    this.#everyFault(this.plan.crashEveryUs, () => this.#crashOne());
    this.#everyFault(this.plan.pauseEveryUs, () => this.#pauseOne());
    this.#everyFault(this.plan.partitionEveryUs, () => this.#partition());
    this.#everyFault(this.plan.slowDiskEveryUs, () => this.#slowDisk());
    this.#everyFault(this.plan.transferEveryUs, () => this.#transfer());
    this.queue.runUntil(faultUs);
    this.#heal();
    const served = this.#awaitLiveness(faultUs + LIVENESS_US);
    return {
      simulatedUs: this.queue.nowUs,
      committed: this.checker.committedCount,
      elections: this.checker.elections,
      acknowledged: this.#acknowledged,
      injections: this.checker.injections,
      transfers: this.#transfers,
      rebases: this.#rebases,
      served,
    };
  }

  /** Runs on until the healed cluster does its work again; fails when the time for that is over. */
  #awaitLiveness(endUs: number): boolean {
    const { committedCount } = this.checker;
    for (;;) {
      const missing = this.#whatIsMissing(committedCount);
      if (missing === undefined) break;
      if (this.queue.nowUs >= endUs) fail(missing);
      this.queue.runUntil(this.queue.nowUs + LIVENESS_STEP_US);
    }
    return this.hosts.some((host) => host.replica?.mayServe === true);
  }

  boot(host: Host): void {
    if (!host.running) host.start();
  }

  #every(intervalUs: number, action: () => void): void {
    this.queue.after(this.prng.between(1, 2 * intervalUs), () => {
      action();
      this.#every(intervalUs, action);
    });
  }

  #everyFault(intervalUs: number, action: () => void): void {
    if (intervalUs === 0) return;
    this.#every(intervalUs, () => {
      if (this.#faults) action();
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

  leaderApplied(host: Host, index: number): void {
    this.checker.acknowledged(index, host);
    this.#acknowledged++;
  }

  /** The serving leader brings other guests up to its own state, and then names them in the executing set. */
  reprotect(): void {
    const leader = this.hosts.find((host) => host.replica?.mayServe === true);
    const guest = leader?.guest;
    if (leader?.replica === undefined || guest === undefined || this.queue.nowUs < leader.pausedUntilUs)
      return;
    const set = leader.replica.executingSet;
    const peer = this.hosts.find((host) => host !== leader && host.running && this.#wantsIn(host, set));
    if (peer?.guest === undefined || this.#reprotecting.has(peer.id)) return;
    if (this.network.isBlocked(leader.id, peer.id)) return;
    this.#reprotecting.add(peer.id);
    const { term } = leader.replica;
    const { incarnation } = peer.guest;
    this.queue.after(STATE_TRANSFER_US, () => {
      this.#reprotecting.delete(peer.id);
      const current = leader.replica;
      if (current?.mayServe !== true || current.term !== term || leader.guest !== guest) return;
      if (peer.guest?.incarnation !== incarnation || !peer.running) return;
      peer.adoptGuest(guest);
      current.proposeExecutingSet([...current.executingSet, { replica: peer.id, incarnation }]);
      leader.step();
      peer.step();
    });
  }

  #wantsIn(host: Host, set: readonly { replica: number; incarnation: number }[]): boolean {
    const { guest } = host;
    if (guest === undefined) return false;
    return !set.some((one) => one.replica === host.id) && set.length < 2;
  }

  processEnded(host: Host): void {
    if (this.plan.toldOfDeath) {
      for (const other of this.hosts) {
        if (other !== host) this.queue.after(this.prng.between(5, 500), () => other.peerEnded(host.id));
      }
    }
    this.queue.after(this.prng.between(1_000, this.plan.restartUsMax), () => this.boot(host));
  }

  /** Memory durability survives the loss of a minority at a time, until those are level again: no more goes. */
  mayLose(host: Host): boolean {
    if (this.plan.durability === 'disk') return true;
    const lost = this.hosts.filter(
      (other) => other !== host && other.replica?.state.logLost !== false,
    ).length;
    return (lost + 1) * 2 < this.plan.replicas;
  }

  #crashOne(): void {
    const running = this.hosts.filter((host) => host.running);
    if (running.length === 0) return;
    const leader = running.find((host) => host.replica?.role === 'leader');
    const victim = leader !== undefined && this.prng.chance(0.5) ? leader : this.prng.pick(running);
    if (this.mayLose(victim)) victim.crash(this.prng.chance(this.plan.crashTakesGuest));
  }

  #pauseOne(): void {
    const host = this.prng.pick(this.hosts);
    host.pausedUntilUs = this.queue.nowUs + this.prng.between(1_000, 800_000);
    const life = host.disk.hard.processNumber;
    this.queue.at(host.pausedUntilUs, () => {
      if (life === host.disk.hard.processNumber) host.step();
    });
  }

  #partition(): void {
    const cut = this.#chooseLinks();
    for (const [from, to] of cut) this.network.block(from, to);
    this.queue.after(this.prng.between(1_000, 700_000), () => {
      for (const [from, to] of cut) this.network.unblock(from, to);
    });
  }

  /** One link in one direction, one replica from all others, or the cluster in two. */
  #chooseLinks(): [number, number][] {
    const size = this.plan.replicas;
    const cut: [number, number][] = [];
    const one = this.prng.between(0, size - 1);
    if (this.prng.chance(0.3)) return [[one, (one + this.prng.between(1, size - 1)) % size]];
    const side = this.voters.map((id) => (this.prng.chance(0.5) ? id === one : this.prng.chance(0.5)));
    const oneWay = this.prng.chance(0.3);
    for (let from = 0; from < size; from++) {
      for (let to = 0; to < size; to++) {
        if (side[from] === side[to] || (oneWay && side[from] === true)) continue;
        cut.push([from, to]);
      }
    }
    return cut;
  }

  #slowDisk(): void {
    const host = this.prng.pick(this.hosts);
    host.disk.slowdown = this.prng.between(2, 50);
    this.queue.after(this.prng.between(10_000, 1_000_000), () => (host.disk.slowdown = 1));
  }

  #transfer(): void {
    const leader = this.hosts.find((host) => host.replica?.mayServe === true);
    const peer = this.prng.pick(this.voters);
    if (leader?.replica === undefined || peer === leader.id) return;
    if (this.queue.nowUs < leader.pausedUntilUs) return;
    const refusal = leader.replica.transferTo(peer, leader.replica.executingSet);
    if (refusal === undefined) this.#transfers++;
    leader.step();
  }

  #heal(): void {
    this.#faults = false;
    this.network.plan = calm(this.plan);
    this.network.unblockAll();
    for (const host of this.hosts) {
      host.disk.slowdown = 1;
      host.pausedUntilUs = 0;
      this.queue.after(10, () => host.step());
    }
  }

  #whatIsMissing(committedBefore: number): string | undefined {
    const leaders = this.hosts.filter((host) => host.replica?.role === 'leader');
    const replica = leaders[0]?.replica;
    if (leaders.length !== 1 || replica === undefined)
      return `${leaders.length} leaders after the faults ended`;
    for (const host of this.hosts) {
      if (host.replica === undefined) return `replica ${host.id} did not come back`;
      const lag = this.checker.committedCount - host.replica.commitIndex;
      if (lag > LAG_MAX) return `replica ${host.id} stays ${lag} records behind`;
    }
    if (replica.executorState === 'none') {
      const able = this.hosts.some((host) => host.replica?.state.eligible === true);
      return able ? 'nobody serves although an eligible executor runs' : undefined;
    }
    if (!replica.mayServe) return `the leader does not serve: ${replica.proposeRefusal ?? ''}`;
    return this.checker.committedCount <= committedBefore + 10 ? 'nothing new is committed' : undefined;
  }
}

function timesOf(plan: FaultPlan): FalconTimes {
  const scaled = Object.entries(DEFAULT_TIMES).map(([name, value]) => [
    name,
    (value as number) * plan.timeScale,
  ]);
  const times = Object.fromEntries(scaled) as FalconTimes;
  return { ...times, electionTimeoutUsMax: times.electionTimeoutUsMin * plan.timeoutSpread };
}
