/** Brings the faults of a plan about, each at its own pace, for as long as the safety phase lasts. */
import type { ReplicaId } from '../../vmm/core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { Host } from './host.ts';
import { HOSTS_MAX } from './host-world.ts';
import type { Network } from './network.ts';
import type { Prng } from './prng.ts';

export interface Victims {
  readonly queue: EventQueue;
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: readonly Host[];
  mayLose(host: Host): boolean;
}

export class Saboteur {
  readonly #cluster: Victims;
  #active = true;

  constructor(cluster: Victims) {
    this.#cluster = cluster;
  }

  begin(): void {
    const { plan } = this.#cluster;
    this.#every(plan.crashEveryUs, () => this.#crashOne());
    this.#every(plan.pauseEveryUs, () => this.#pauseOne());
    this.#every(plan.partitionEveryUs, () => this.#partition());
    this.#every(plan.clogEveryUs, () => this.#clog());
    this.#every(plan.slowDiskEveryUs, () => this.#slowDisk());
    this.#every(plan.loseLogEveryUs, () => this.#loseLog());
    this.#every(plan.destroyEveryUs, () => this.#destroy());
    this.#every(plan.rotEveryUs, () => this.#rot());
    this.#every(plan.checkpointEveryUs, () => this.#checkpoint());
  }

  end(): void {
    this.#active = false;
    const { hosts, queue } = this.#cluster;
    for (const host of hosts) {
      host.disk.slowdown = 1;
      host.pausedUntilUs = 0;
      queue.after(10, () => host.step());
    }
  }

  #every(intervalUs: number, action: () => void): void {
    if (intervalUs === 0) return;
    const { queue, prng } = this.#cluster;
    queue.after(prng.between(1, 2 * intervalUs), () => {
      if (!this.#active) return;
      action();
      this.#every(intervalUs, action);
    });
  }

  #running(): Host[] {
    return this.#cluster.hosts.filter((host) => host.running);
  }

  /** The leader is a victim as often as all others together. */
  #victim(): Host | undefined {
    const { prng } = this.#cluster;
    const running = this.#running();
    const leader = running.find((host) => host.replica?.role === 'leader');
    if (leader !== undefined && prng.chance(0.5)) return leader;
    return running.length === 0 ? undefined : prng.pick(running);
  }

  #crashOne(): void {
    const victim = this.#victim();
    const { plan, prng } = this.#cluster;
    if (victim === undefined || (plan.durability === 'memory' && !this.#cluster.mayLose(victim))) return;
    victim.crash(prng.chance(plan.crashTakesGuest));
  }

  #pauseOne(): void {
    const { prng, queue } = this.#cluster;
    const host = this.#victim();
    if (host === undefined) return;
    host.pausedUntilUs = queue.nowUs + prng.between(1_000, 800_000);
    const life = host.disk.hard.processNumber;
    queue.at(host.pausedUntilUs, () => {
      if (life === host.disk.hard.processNumber) host.step();
    });
  }

  #partition(): void {
    const { network, queue, prng } = this.#cluster;
    const cut = this.#chooseLinks();
    for (const [from, to] of cut) network.block(from, to);
    queue.after(prng.between(1_000, 700_000), () => {
      if (this.#active) for (const [from, to] of cut) network.unblock(from, to);
    });
  }

  /** One link in one direction, one replica from all others, or the cluster in two. */
  #chooseLinks(): [number, number][] {
    const { prng, hosts } = this.#cluster;
    const size = hosts.length;
    const cut: [number, number][] = [];
    const one = prng.between(0, size - 1);
    if (prng.chance(0.3)) return [[one, (one + prng.between(1, size - 1)) % size]];
    const side = hosts.map(({ id }) => (prng.chance(0.5) ? id === one : prng.chance(0.5)));
    const oneWay = prng.chance(0.3);
    for (let from = 0; from < size; from++) {
      for (let to = 0; to < size; to++) {
        if (side[from] === side[to] || (oneWay && side[from] === true)) continue;
        cut.push([from, to]);
      }
    }
    return cut;
  }

  /** A link still carries everything, in order, but far too late. */
  #clog(): void {
    const { network, queue, prng, hosts } = this.#cluster;
    const from = prng.between(0, hosts.length - 1);
    const to = (from + prng.between(1, hosts.length - 1)) % hosts.length;
    network.clog(from, to, prng.between(5_000, 300_000));
    queue.after(prng.between(10_000, 700_000), () => network.clog(from, to, 0));
  }

  #slowDisk(): void {
    const { queue, prng, hosts } = this.#cluster;
    const host = prng.pick(hosts);
    host.disk.slowdown = prng.between(2, 50);
    queue.after(prng.between(10_000, 1_000_000), () => (host.disk.slowdown = 1));
  }

  #loseLog(): void {
    const victim = this.#victim();
    const { plan, prng } = this.#cluster;
    if (plan.durability === 'memory' || victim === undefined || !this.#cluster.mayLose(victim)) return;
    victim.crash(prng.chance(plan.crashTakesGuest));
    victim.loseLog();
  }

  #destroy(): void {
    const victim = this.#victim();
    if (victim !== undefined && this.#cluster.mayLose(victim)) victim.destroy();
  }

  #rot(): void {
    const { plan, prng, hosts } = this.#cluster;
    const host = prng.pick(hosts);
    if (plan.durability === 'disk' && !host.gone && this.#cluster.mayLose(host)) host.disk.rot();
  }

  #checkpoint(): void {
    const { plan, prng } = this.#cluster;
    const running = this.#running();
    if (plan.durability === 'memory' || running.length === 0) return;
    prng.pick(running).checkpoint();
  }
}

/** Cuts a replica off from all others, those included that are yet to come. */
export function isolate(network: Network, id: ReplicaId): void {
  for (let other = 0; other < HOSTS_MAX; other++) {
    if (other === id) continue;
    network.block(id, other);
    network.block(other, id);
  }
}
