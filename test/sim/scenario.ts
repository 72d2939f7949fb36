/** A calm cluster, led by hand: for the scenarios that the swarm meets only now and then. */
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { RecordType } from '../../vmm/core/falcon/record-type.ts';
import type { LogIndex } from '../../vmm/core/ids.ts';
import { Cluster } from './cluster.ts';
import { chooseFaults, type FaultPlan } from './fault-plan.ts';
import type { Host } from './host.ts';
import { calm } from './network.ts';
import { isolate } from './saboteur.ts';

const PATIENCE_US = 3_000_000;

export class Scenario {
  readonly cluster: Cluster;

  constructor(overrides: Partial<FaultPlan> = {}, seed = 1) {
    this.cluster = new Cluster(
      seed,
      (prng) => ({ ...quietPlan(chooseFaults(prng)), ...overrides }),
      () => undefined,
    );
    for (const host of this.cluster.hosts) this.cluster.boot(host);
  }

  host(id: number): Host {
    const host = this.cluster.hosts[id];
    if (host === undefined) throw new RangeError(`There is no replica ${id}`);
    return host;
  }

  replica(id: number): FalconReplica {
    const { replica } = this.host(id);
    if (replica === undefined) throw new RangeError(`Replica ${id} does not run`);
    return replica;
  }

  run(us: number): void {
    this.cluster.queue.runUntil(this.cluster.queue.nowUs + us);
  }

  /** Runs until it is so, and tells how long that took in virtual time. */
  until(what: string, holds: () => boolean): number {
    const { queue } = this.cluster;
    const startUs = queue.nowUs;
    while (!holds()) {
      if (queue.nowUs - startUs > PATIENCE_US) throw new Error(`It never came about that ${what}`);
      queue.runUntil(queue.nowUs + 100);
    }
    return queue.nowUs - startUs;
  }

  untilServes(id: number): number {
    return this.until(`replica ${id} serves`, () => this.host(id).replica?.mayServe === true);
  }

  propose(id: number, payload: Uint8Array = new Uint8Array(8)): LogIndex {
    const index = this.replica(id).propose(RecordType.firstOfApplication, 1, payload);
    if (typeof index !== 'number') throw new Error(`Refused: ${index}`);
    this.host(id).step();
    return index;
  }

  untilCommitted(id: number, index: LogIndex): number {
    return this.until(`record ${index} is committed at ${id}`, () => this.replica(id).commitIndex >= index);
  }

  /** Replicas 0 and 1 execute, 0 serves, the others stand by. */
  protect(): this {
    this.untilServes(0);
    this.cluster.operator.reprotect();
    this.until('the set of both is committed', () => this.replica(0).executingSetCommitted.length === 2);
    this.until('the backup knows it', () => this.replica(1).executingSetCommitted.length === 2);
    return this;
  }

  cutOff(id: number): void {
    isolate(this.cluster.network, this.host(id).id);
  }

  heal(): void {
    this.cluster.network.heal();
  }
}

function quietPlan(plan: FaultPlan): FaultPlan {
  return {
    ...calm(plan),
    replicas: 3,
    durability: 'disk',
    crashTakesGuest: 0,
    tornTail: 0,
    putsNeedProgress: false,
    toldOfDeath: false,
    clockSkew: 0,
    restartUsMax: 1_000_000_000,
    timeScale: 1,
    heartbeatStride: 1,
    timeoutSpread: 1.5,
    ringSlots: 64,
    logStorageBytes: 1024 * 1024,
  };
}
