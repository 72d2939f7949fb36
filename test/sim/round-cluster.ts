/**
 * Three replicas under one seed, with real rounds: first faults and load, then calm, in which whoever still has a
 * VALID guest must serve, protect itself again and go on.
 */
import { DEFAULT_TIMES, type FalconTimes } from '../../vmm/core/falcon/settings.ts';
import { toReplicaId, type ReplicaId } from '../../vmm/core/ids.ts';
import { EventQueue } from './event-queue.ts';
import { Prng } from './prng.ts';
import { fail, RoundChecker } from './round-checker.ts';
import type { MomentRegistry } from './round-guest.ts';
import { RoundHost } from './round-host.ts';
import { RoundNetwork } from './round-network.ts';
import { calmRounds, type RoundPlan } from './round-plan.ts';
import type { RoundWorldOfHosts, SimHost } from './round-world.ts';

const REPLICAS = 3;
const LIVENESS_US = 6_000_000;

export interface RoundResult {
  readonly mode: string;
  readonly simulatedUs: number;
  readonly rounds: number;
  readonly releases: number;
  readonly equalities: number;
  readonly differences: number;
  readonly terms: number;
  readonly served: boolean;
}

export class RoundCluster implements RoundWorldOfHosts {
  readonly queue = new EventQueue();
  readonly prng: Prng;
  readonly plan: RoundPlan;
  readonly network: RoundNetwork;
  readonly voters: readonly ReplicaId[];
  readonly hosts: readonly RoundHost[];
  readonly checker: RoundChecker;
  readonly times: FalconTimes = DEFAULT_TIMES;
  readonly registry: MomentRegistry = [];
  readonly plant: (host: SimHost) => void;
  readonly #regions: object[] = [{}];
  #requests = 0;
  #faults = true;

  constructor(
    seed: number,
    plan: (prng: Prng) => RoundPlan,
    plant: (host: SimHost) => void = () => undefined,
  ) {
    this.prng = new Prng(seed);
    this.plan = plan(this.prng);
    this.plant = plant;
    this.network = new RoundNetwork(this.queue, this.prng, this.plan);
    this.voters = Array.from({ length: REPLICAS }, (_, id) => toReplicaId(id));
    this.hosts = this.voters.map((id) => new RoundHost(this, id, id < 2 || this.plan.thirdGuest));
    const framesCount = this.plan.mode !== 'lockstep' || this.plan.lockstepSlips === 0;
    this.checker = new RoundChecker(this.hosts, framesCount, this.plan.mode === 'lockstep');
  }

  run(faultUs: number): RoundResult {
    for (const host of this.hosts) this.queue.after(this.prng.between(0, 5_000), () => this.boot(host));
    this.#every(this.plan.crashEveryUs, () => this.#crashOne());
    this.#every(this.plan.pauseEveryUs, () => this.#pauseOne());
    this.#every(this.plan.partitionEveryUs, () => this.#partition());
    this.#every(this.plan.transferEveryUs, () => this.#transfer());
    this.queue.runUntil(faultUs);
    this.#heal();
    const served = this.#awaitLiveness(faultUs + LIVENESS_US);
    const { rounds, releases, equalities, differences } = this.checker;
    const terms = Math.max(...this.hosts.map((host) => host.disk.term));
    const { mode } = this.plan;
    return { mode, simulatedUs: this.queue.nowUs, rounds, releases, equalities, differences, terms, served };
  }

  boot(host: RoundHost): void {
    if (host.replica === undefined) host.start();
  }

  host(id: ReplicaId): RoundHost {
    const host = this.hosts[id];
    if (host === undefined) throw new RangeError(`There is no replica ${id}`);
    return host;
  }

  nameRegion(region: object): number {
    return this.#regions.push(region) - 1;
  }

  regionNamed(name: number): object | undefined {
    return this.#regions[name];
  }

  nextRequest(): number {
    return ++this.#requests;
  }

  /** The last VALID guest goes only now and then: what could still go wrong then is little. */
  mayDie(host: SimHost): boolean {
    const others = this.hosts.filter((other) => other !== host && isSuccessor(other));
    return !isSuccessor(host) || others.length > 0 || this.prng.chance(0.02);
  }

  processEnded(host: SimHost): void {
    if (this.plan.toldOfDeath) {
      for (const other of this.hosts) {
        if (other === host) continue;
        this.queue.after(this.prng.between(5, 500), () =>
          other.whenAwake(() => {
            other.replica?.peerGone(host.id);
            other.loop?.peerGone(host.id);
          }),
        );
      }
    }
    this.queue.after(this.prng.between(1_000, this.plan.restartUsMax), () => this.boot(this.host(host.id)));
  }

  #every(intervalUs: number, action: () => void): void {
    if (intervalUs === 0) return;
    this.queue.after(this.prng.between(1, 2 * intervalUs), () => {
      if (this.#faults) action();
      this.#every(intervalUs, action);
    });
  }

  #crashOne(): void {
    const running = this.hosts.filter((host) => host.replica !== undefined);
    if (running.length === 0) return;
    const leader = running.find((host) => host.replica?.mayServe === true);
    const victim = leader !== undefined && this.prng.chance(0.5) ? leader : this.prng.pick(running);
    if (this.mayDie(victim)) victim.crash(this.prng.chance(this.plan.crashTakesGuest));
  }

  #pauseOne(): void {
    const host = this.prng.pick(this.hosts);
    host.pausedUntilUs = this.queue.nowUs + this.prng.between(1_000, 500_000);
    this.queue.at(host.pausedUntilUs, () => host.step());
  }

  #partition(): void {
    const one = this.prng.between(0, REPLICAS - 1);
    const other = (one + this.prng.between(1, REPLICAS - 1)) % REPLICAS;
    const both = this.prng.chance(0.6);
    const all = this.prng.chance(0.4);
    const cut: [number, number][] = [];
    for (const peer of all ? this.voters : [other]) {
      if (peer === one) continue;
      cut.push([one, peer]);
      if (both) cut.push([peer, one]);
    }
    for (const [from, to] of cut) this.network.block(from, to);
    this.queue.after(this.prng.between(1_000, 400_000), () => {
      for (const [from, to] of cut) this.network.unblock(from, to);
    });
  }

  /** The leader gives its term to its partner, which both execute under, if both are known to be equal now. */
  #transfer(): void {
    const leader = this.hosts.find((host) => host.replica?.mayServe === true && !host.paused);
    const partner = leader?.loop?.partners.partner;
    if (leader?.replica === undefined || partner === undefined) return;
    const equal = leader.loop?.level === true && leader.exchange?.leader.underWay === false;
    leader.replica.transferTo(
      partner,
      equal && this.plan.mode !== 'lockstep' ? leader.replica.executingSet : [],
    );
    leader.step();
  }

  #heal(): void {
    this.#faults = false;
    this.network.plan = calmRounds(this.plan);
    for (const from of this.voters) for (const to of this.voters) this.network.unblock(from, to);
    for (const host of this.hosts) {
      host.pausedUntilUs = 0;
      this.queue.after(10, () => host.step());
    }
  }

  #awaitLiveness(endUs: number): boolean {
    const { rounds } = this.checker;
    for (;;) {
      const missing = this.#whatIsMissing(rounds);
      if (missing === undefined) return this.hosts.some((host) => host.runner?.serving === true);
      if (this.queue.nowUs >= endUs) fail(missing);
      this.queue.runUntil(this.queue.nowUs + 50_000);
    }
  }

  #whatIsMissing(roundsBefore: number): string | undefined {
    if (this.hosts.some((host) => host.replica === undefined)) return 'a replica did not come back';
    const leader = this.hosts.find((host) => host.replica?.role === 'leader');
    if (leader?.replica === undefined) return 'nobody leads after the faults ended';
    const able = this.hosts.some((host) => host.replica?.state.eligible === true);
    if (!able) return undefined;
    if (leader.runner?.serving !== true) return 'an eligible executor runs, but nobody serves';
    if (leader.replica.executingSetCommitted.length < 2) return 'nobody executes beside the leader';
    return this.checker.rounds < roundsBefore + 10 ? 'no rounds are run' : undefined;
  }
}

/** Would serve if it won a term. */
function isSuccessor(host: SimHost): boolean {
  return host.replica?.state.eligible === true;
}
