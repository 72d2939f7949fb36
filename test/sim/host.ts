/**
 * One simulated machine: a disk, a guest, and, while it runs, a process with a Falcon replica in it. Its
 * `step` is the shell's loop, in the order that replica.ts documents.
 */
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import type { FalconLog } from '../../vmm/core/falcon/log.ts';
import { IntakeResult } from '../../vmm/core/falcon/intake.ts';
import { recordMemory, recordType } from '../../vmm/core/falcon/record.ts';
import { RecordType } from '../../vmm/core/falcon/record-type.ts';
import { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import type { FalconSettings, FalconTimes } from '../../vmm/core/falcon/settings.ts';
import { ACK_BYTES, HEARTBEAT_BYTES } from '../../vmm/core/falcon/signal.ts';
import { NO_REPLICA, toLogIndex, toReplicaId, toTerm, type ReplicaId } from '../../vmm/core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { Network } from './network.ts';
import type { Prng } from './prng.ts';
import { SimulatedDisk } from './disk.ts';

/** Memory that one leader of one term writes into; `life` is the process that owns it. */
export class Region {
  readonly slots = new Map<number, Uint8Array>();
  readonly heartbeat = new Uint8Array(HEARTBEAT_BYTES);
  readonly writer: ReplicaId;
  readonly term: number;
  consumed = 0;
  newestSlot = -1;
  stuckSinceUs = -1;

  constructor(writer: ReplicaId, term: number) {
    this.writer = writer;
    this.term = term;
  }
}

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
  died(host: Host, log: FalconLog): void;
}

/** What surrounds a host. */
export interface HostWorld {
  readonly queue: EventQueue;
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly voters: readonly ReplicaId[];
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

/** Thrown in the middle of a step: the process is gone, what it had not yet done is not done. */
class Died extends Error {}

const REGION_PATIENCE_US = 3_000;
const RECORD_BYTES_MAX = 4096;
export const CLUSTER_ID = 0x1234_5678_9abc_def0n;

export class Host {
  readonly id: ReplicaId;
  readonly cluster: HostWorld;
  readonly disk: SimulatedDisk;
  readonly executes: boolean;
  readonly clockRate: number;
  readonly clockOffsetUs: number;
  replica: FalconReplica | undefined;
  region: Region | undefined;
  regionId = 0;
  guest: Guest | undefined;
  guestIncarnation = 0;
  pausedUntilUs = 0;
  ackMemory: Uint8Array[] = [];
  appliedIndex = 0;
  #ships: { version: number; slot: number }[] = [];
  readonly #scratch = recordMemory(new Uint8Array(64));
  readonly #catchUp = recordMemory(new Uint8Array(RECORD_BYTES_MAX));
  #wakeAtUs = Infinity;

  constructor(
    cluster: HostWorld,
    id: ReplicaId,
    executes: boolean,
    clockRate: number,
    clockOffsetUs: number,
  ) {
    this.cluster = cluster;
    this.id = id;
    this.executes = executes;
    this.clockRate = clockRate;
    this.clockOffsetUs = clockOffsetUs;
    const hard = { term: 0, votedFor: NO_REPLICA, processNumber: 0 };
    this.disk = new SimulatedDisk(cluster.queue, cluster.prng, hard);
  }

  get running(): boolean {
    return this.replica !== undefined;
  }

  get nowUs(): number {
    return this.cluster.queue.nowUs * this.clockRate + this.clockOffsetUs;
  }

  start(): void {
    const { cluster, disk } = this;
    disk.hard.processNumber++;
    const replica = new FalconReplica(this.#settings());
    cluster.plant(replica);
    for (const bytes of disk.records()) {
      if (!replica.restoreRecord(bytes, 0, bytes.length)) throw new Error('Recovery refused its own record');
      // What the guest has executed before may be dropped as room is needed.
      if (cluster.plan.durability === 'disk') replica.applied(replica.commitIndex);
    }
    this.replica = replica;
    this.region = undefined;
    this.ackMemory = Array.from({ length: cluster.plan.replicas }, () => new Uint8Array(ACK_BYTES));
    this.#ships = Array.from({ length: cluster.plan.replicas }, () => ({ version: 0, slot: 0 }));
    this.appliedIndex = replica.commitIndex;
    if (this.executes && this.guest === undefined) this.#newGuest();
    replica.setAckMemoryKey(uint32Bytes(disk.hard.processNumber));
    this.#tellExecutor();
    replica.start(this.nowUs);
    this.#wakeAtUs = Infinity;
    this.step();
  }

  #settings(): FalconSettings {
    const { cluster, disk } = this;
    return {
      self: this.id,
      voters: cluster.voters,
      processNumber: disk.hard.processNumber,
      hardState: {
        clusterId: CLUSTER_ID,
        term: toTerm(disk.hard.term),
        votedFor: disk.hard.votedFor as ReplicaId,
      },
      base: {
        index: toLogIndex(0),
        term: toTerm(0),
        checksum: 0,
        executing: [{ replica: toReplicaId(0), incarnation: 1 }],
      },
      durability: cluster.plan.durability,
      ...(cluster.plan.durability === 'disk' ? { olderRecords: disk } : {}),
      logLost: cluster.plan.durability === 'memory' && disk.hard.processNumber > 1,
      times: cluster.times,
      logLimits: { storageBytes: cluster.plan.logStorageBytes, recordsMax: 8192, recordBytesMax: RECORD_BYTES_MAX },
      crc32c: crc32cByTables,
      random: () => cluster.prng.fraction(),
    };
  }

  /** The first guest of all is VALID by definition; any later one only after a state transfer. */
  #newGuest(): void {
    this.guestIncarnation++;
    const first = this.id === 0 && this.guestIncarnation === 1;
    this.guest = { incarnation: this.guestIncarnation, valid: first, appliedIndex: 0, digest: 0 };
  }

  #tellExecutor(): void {
    this.replica?.setExecutor(this.guest?.incarnation ?? 0, this.guest?.valid ?? false);
  }

  crash(takesGuest: boolean): void {
    if (this.replica === undefined) return;
    const { log } = this.replica;
    if (this.cluster.plan.durability === 'memory') this.cluster.checker.died(this, log);
    this.replica = undefined;
    this.region = undefined;
    this.cluster.regions.delete(this.regionId);
    this.disk.crash();
    if (takesGuest) this.guest = undefined;
    this.cluster.processEnded(this);
  }

  /** State transfer from the leader's guest, whole. */
  adoptGuest(from: Guest): void {
    if (this.guest === undefined || this.replica === undefined) return;
    this.guest.appliedIndex = from.appliedIndex;
    this.guest.digest = from.digest;
    this.guest.valid = true;
    this.#tellExecutor();
  }

  receive(from: ReplicaId, bytes: Uint8Array): void {
    if (this.replica === undefined) return;
    if (this.#frozen(() => this.receive(from, bytes))) return;
    this.replica.tick(this.nowUs);
    const refusal = this.replica.receive(from, bytes);
    if (refusal !== undefined) throw new Error(`A message was refused: ${refusal}`);
    this.step();
  }

  peerEnded(peer: ReplicaId): void {
    if (this.replica === undefined) return;
    if (this.#frozen(() => this.peerEnded(peer))) return;
    this.replica.tick(this.nowUs);
    this.replica.peerGone(peer);
    this.step();
  }

  /** True when the machine stands still: what came is taken up when it goes on. */
  #frozen(later: () => void): boolean {
    const { queue } = this.cluster;
    if (queue.nowUs >= this.pausedUntilUs) return false;
    const life = this.disk.hard.processNumber;
    queue.at(this.pausedUntilUs, () => {
      if (life === this.disk.hard.processNumber) later();
    });
    return true;
  }

  step(): void {
    const { replica } = this;
    if (replica === undefined || this.cluster.queue.nowUs < this.pausedUntilUs) return;
    try {
      this.#pass(replica);
    } catch (error) {
      if (!(error instanceof Died)) throw error;
      this.crash(this.cluster.prng.chance(this.cluster.plan.crashTakesGuest));
      return;
    }
    this.cluster.checker.observe(this);
    this.#sleep(replica);
  }

  #pass(replica: FalconReplica): void {
    replica.tick(this.nowUs);
    this.#poll(replica);
    this.#mayDie();
    this.#persistHardState(replica);
    this.#mayDie();
    this.#openRegion(replica);
    this.#mayDie();
    for (let message = replica.takeMessage(); message !== undefined; message = replica.takeMessage()) {
      this.#sendMessage(message.to, message.bytes);
      this.#mayDie();
    }
    this.#persistRecords(replica);
    for (const peer of this.cluster.voters) if (peer !== this.id) this.#ship(replica, peer);
    this.#signal(replica);
    this.#apply(replica);
  }

  #mayDie(): void {
    if (!this.cluster.mayLose(this)) return;
    if (this.cluster.prng.chance(this.cluster.network.plan.dieMidStep)) throw new Died('between two steps');
  }

  #poll(replica: FalconReplica): void {
    const { region } = this;
    if (region !== undefined && replica.regionIsOpen(region.writer, toTerm(region.term))) {
      replica.readHeartbeat(region.writer, region.heartbeat, 0);
      this.#pollRing(replica, region);
    }
    if (replica.role !== 'leader') return;
    for (const peer of this.cluster.voters) {
      const block = this.ackMemory[peer];
      if (peer !== this.id && block !== undefined) replica.readAck(peer, block, 0);
    }
    replica.leaderProgress();
  }

  #pollRing(replica: FalconReplica, region: Region): void {
    for (;;) {
      const bytes = region.slots.get(region.consumed);
      const result = bytes === undefined ? 0 : replica.receiveRecord(bytes, 0, bytes.length);
      const consumes =
        result === IntakeResult.taken || result === IntakeResult.held || result === IntakeResult.gap;
      if (consumes) {
        region.slots.delete(region.consumed);
        region.consumed++;
        region.stuckSinceUs = -1;
        continue;
      }
      if (bytes === undefined ? region.newestSlot > region.consumed : result === IntakeResult.harmed) {
        this.#stuck(replica, region);
      }
      return;
    }
  }

  /** A record that should be there is not, or is harmed: after a while its region is given up. */
  #stuck(replica: FalconReplica, region: Region): void {
    const { nowUs } = this.cluster.queue;
    if (region.stuckSinceUs === -1) region.stuckSinceUs = nowUs;
    if (nowUs - region.stuckSinceUs >= REGION_PATIENCE_US) {
      replica.regionBroken();
      region.stuckSinceUs = nowUs;
    } else this.#wakeAt(region.stuckSinceUs + REGION_PATIENCE_US);
  }

  #persistHardState(replica: FalconReplica): void {
    if (!replica.hardStateDirty) return;
    const { term, votedFor } = replica.hardState();
    this.disk.hard.term = term;
    this.disk.hard.votedFor = votedFor;
    replica.hardStatePersisted();
  }

  #openRegion(replica: FalconReplica): void {
    const { cluster } = this;
    for (let request = replica.takeRegionRequest(); request; request = replica.takeRegionRequest()) {
      cluster.regions.delete(this.regionId);
      this.region = new Region(request.writer, request.term);
      this.regionId = cluster.nextRegionId++;
      cluster.regions.set(this.regionId, this.region);
      replica.regionOpened(request.writer, request.term, uint32Bytes(this.regionId));
    }
  }

  #sendMessage(to: ReplicaId, bytes: Uint8Array): void {
    const target = this.cluster.host(to);
    this.cluster.checker.said(this, bytes);
    this.cluster.network.message(this.id, to, () => target.receive(this.id, bytes));
  }

  #persistRecords(replica: FalconReplica): void {
    const life = this.disk.hard.processNumber;
    for (let index = replica.nextToPersist(); index > 0; index = replica.nextToPersist()) {
      const at = replica.log.offsetAt(index);
      const bytes = replica.log.memory.bytes.slice(at, at + replica.log.bytesAt(index));
      this.disk.write(
        index,
        replica.persistEpoch,
        bytes,
        () => this.cluster.network.plan,
        (last, epoch) => this.#durable(life, last, epoch),
        () => this.crash(false),
      );
      replica.handedToPersist(index);
    }
  }

  #durable(life: number, index: number, epoch: number): void {
    if (life !== this.disk.hard.processNumber || this.replica === undefined) return;
    if (this.#frozen(() => this.#durable(life, index, epoch))) return;
    this.replica.durable(toLogIndex(index), epoch);
    this.step();
  }

  #ship(replica: FalconReplica, peer: ReplicaId): void {
    const key = replica.peerRegion(peer);
    const cursor = this.#ships[peer];
    if (key === undefined || cursor === undefined) return;
    const version = replica.peerRegionVersion(peer);
    if (version !== cursor.version) {
      cursor.version = version;
      cursor.slot = 0;
    }
    const region = this.cluster.regions.get(uint32Of(key));
    const room = (): boolean => cursor.slot - (region?.consumed ?? 0) < this.cluster.plan.ringSlots;
    for (let index = replica.needsCatchUp(peer); index > 0 && room(); index = replica.needsCatchUp(peer)) {
      const length = replica.readToShip(index, this.#catchUp, 0);
      if (length === 0) break;
      this.#putRecord(peer, uint32Of(key), cursor.slot++, this.#catchUp.bytes.slice(0, length));
      replica.shipped(peer, index);
    }
    for (let index = replica.nextToShip(peer); index > 0 && room(); index = replica.nextToShip(peer)) {
      const at = replica.offsetToShip(index);
      const bytes = replica.log.memory.bytes.slice(at, at + replica.log.bytesAt(index));
      this.#putRecord(peer, uint32Of(key), cursor.slot++, bytes);
      replica.shipped(peer, index);
    }
  }

  #putRecord(peer: ReplicaId, regionId: number, slot: number, bytes: Uint8Array): void {
    const target = this.cluster.host(peer);
    this.cluster.network.put(this.id, peer, bytes, (arrived) => {
      const region = this.cluster.regions.get(regionId);
      if (region === undefined) return;
      region.slots.set(slot, arrived);
      region.newestSlot = Math.max(region.newestSlot, slot);
      target.step();
    });
  }

  #signal(replica: FalconReplica): void {
    const { cluster } = this;
    if (replica.heartbeatDue) {
      replica.writeHeartbeat(this.#scratch, 0);
      const bytes = this.#scratch.bytes.slice(0, HEARTBEAT_BYTES);
      for (const peer of cluster.voters) {
        const key = peer === this.id ? undefined : replica.peerRegion(peer);
        if (key !== undefined) this.#putHeartbeat(peer, uint32Of(key), bytes);
      }
      replica.heartbeatWritten();
    }
    if (!replica.ackDue) return;
    cluster.checker.acked(this);
    replica.writeAck(this.#scratch, 0);
    const bytes = this.#scratch.bytes.slice(0, ACK_BYTES);
    const leader = cluster.host(replica.state.region.writer);
    const life = uint32Of(replica.leaderAckKey);
    cluster.network.put(this.id, leader.id, bytes, (arrived) => {
      if (leader.disk.hard.processNumber !== life || !leader.running) return;
      leader.ackMemory[this.id]?.set(arrived);
      leader.step();
    });
  }

  #putHeartbeat(peer: ReplicaId, regionId: number, bytes: Uint8Array): void {
    const target = this.cluster.host(peer);
    this.cluster.network.put(this.id, peer, bytes, (arrived) => {
      this.cluster.regions.get(regionId)?.heartbeat.set(arrived);
      target.step();
    });
  }

  #apply(replica: FalconReplica): void {
    const { log } = replica;
    this.cluster.checker.observe(this);
    this.#takeRebase(replica);
    while (this.appliedIndex < replica.commitIndex) {
      this.appliedIndex++;
      const index = toLogIndex(this.appliedIndex);
      const at = log.offsetAt(index);
      const type = recordType(log.memory, at);
      const guest = this.guest;
      if (guest?.valid === true && guest.appliedIndex === this.appliedIndex - 1) {
        guest.appliedIndex = this.appliedIndex;
        if (type >= RecordType.firstOfApplication) {
          guest.digest = digestOf(guest.digest, log.checksumAt(index));
          this.cluster.checker.injected(this, index, guest.digest);
        }
      }
      if (type >= RecordType.firstOfApplication && replica.role === 'leader') {
        this.cluster.leaderApplied(this, index);
      }
    }
    replica.applied(toLogIndex(this.appliedIndex));
  }

  /** The log begins anew behind a record that was never seen here: a guest that has not executed it is not VALID. */
  #takeRebase(replica: FalconReplica): void {
    const rebased = replica.takeRebased();
    if (rebased === undefined) return;
    this.appliedIndex = rebased;
    if (this.guest !== undefined && this.guest.appliedIndex < rebased) this.guest.valid = false;
    this.#tellExecutor();
    this.cluster.rebased();
  }

  #sleep(replica: FalconReplica): void {
    const deadlineUs = (replica.nextDeadlineUs - this.clockOffsetUs) / this.clockRate;
    this.#wakeAt(Math.max(deadlineUs, this.cluster.queue.nowUs) + 50);
  }

  #wakeAt(atUs: number): void {
    const { queue } = this.cluster;
    if (this.#wakeAtUs <= atUs && this.#wakeAtUs > queue.nowUs) return;
    this.#wakeAtUs = atUs;
    const life = this.disk.hard.processNumber;
    queue.at(Math.max(atUs, this.pausedUntilUs), () => {
      if (this.#wakeAtUs === atUs) this.#wakeAtUs = Infinity;
      if (life === this.disk.hard.processNumber) this.step();
    });
  }
}

function digestOf(digest: number, checksum: number): number {
  return (Math.imul(digest ^ checksum, 0x9e3779b1) ^ (digest >>> 15)) | 0;
}

function uint32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function uint32Of(bytes: Uint8Array): number {
  return bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
