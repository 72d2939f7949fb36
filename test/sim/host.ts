/**
 * One simulated machine: a disk, a guest, and, while it runs, a process with a Falcon replica in it. Its
 * `step` is the shell's loop, in the order that replica.ts documents.
 */
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import { IntakeResult } from '../../vmm/core/falcon/intake.ts';
import { recordType } from '../../vmm/core/falcon/record.ts';
import { RecordType } from '../../vmm/core/falcon/record-type.ts';
import { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import type { Members } from '../../vmm/core/falcon/membership.ts';
import type { FalconSettings } from '../../vmm/core/falcon/settings.ts';
import { toLogIndex, toReplicaId, toTerm, type ReplicaId } from '../../vmm/core/ids.ts';
import { SimulatedDisk, type DiskBase } from './disk.ts';
import { CLUSTER_ID, RECORD_BYTES_MAX, type Guest, type HostWorld, type Machine } from './host-world.ts';
import { Region } from './region.ts';
import { uint32Bytes, Wire } from './wire.ts';

/** Thrown in the middle of a step: the process is gone, what it had not yet done is not done. */
class Died extends Error {}

const REGION_PATIENCE_US = 3_000;

export class Host implements Machine {
  readonly id: ReplicaId;
  readonly cluster: HostWorld;
  readonly disk: SimulatedDisk;
  readonly executes: boolean;
  readonly clockRate: number;
  readonly clockOffsetUs: number;
  /** What the operator told this replica when it was made. */
  readonly firstBase: DiskBase;
  /** The machine is gone for good, or was switched off after the replica was removed. */
  gone = false;
  /** Its disk was replaced, or its log found harmed: it may have acknowledged what it no longer has. */
  logLost = false;
  /** Stays down, or cut off, although the faults are over. */
  leftBehind = false;
  /** Members by the log it had when its process ended last. */
  lastMembers: Members;
  replica: FalconReplica | undefined;
  region: Region | undefined;
  regionId = 0;
  guest: Guest | undefined;
  guestIncarnation = 0;
  pausedUntilUs = 0;
  ackMemory: (Uint8Array | undefined)[] = [];
  appliedIndex = 0;
  /** A planted bug: what leaders of the past still put is read, too. */
  readsOldRegions = false;
  #oldRegions: Region[] = [];
  readonly #wire: Wire;
  #wakeAtUs = Infinity;
  #wakeWantedUs = Infinity;
  /** What the core is checking right now. */
  #checked: Uint8Array | undefined;

  constructor(
    cluster: HostWorld,
    id: ReplicaId,
    executes: boolean,
    clockRate: number,
    clockOffsetUs: number,
    members: Members,
  ) {
    this.cluster = cluster;
    this.id = id;
    this.executes = executes;
    this.clockRate = clockRate;
    this.clockOffsetUs = clockOffsetUs;
    this.lastMembers = members;
    this.#wire = new Wire(this, cluster);
    this.firstBase = {
      index: toLogIndex(0),
      term: toTerm(0),
      checksum: 0,
      executing: [{ replica: toReplicaId(0), incarnation: 1 }],
      members,
    };
    this.disk = new SimulatedDisk(cluster.queue, cluster.prng, this.firstBase);
  }

  get running(): boolean {
    return this.replica !== undefined;
  }

  get nowUs(): number {
    return this.cluster.queue.nowUs * this.clockRate + this.clockOffsetUs;
  }

  get members(): Members {
    return this.replica?.members ?? this.lastMembers;
  }

  /** Counts among those whose memory of the log is gone for now, or for ever. */
  get isLost(): boolean {
    if (this.gone || this.logLost || this.disk.harmed) return true;
    return this.cluster.plan.durability === 'memory' && this.replica?.state.logLost !== false;
  }

  start(): void {
    if (this.gone) return;
    const { disk } = this;
    disk.hard.processNumber++;
    let replica = this.#recover();
    if (replica === undefined) {
      // Harmed where it had been synced: the log is refused, and the replica begins without one.
      this.loseLog();
      replica = this.#recover() ?? bug('An empty log can be recovered');
    }
    this.replica = replica;
    this.region = undefined;
    this.#oldRegions = [];
    this.ackMemory = [];
    this.#wire.reset();
    if (this.executes && this.guest === undefined) this.#newGuest();
    replica.setAckMemoryKey(uint32Bytes(disk.hard.processNumber));
    this.#tellExecutor();
    replica.start(this.nowUs);
    this.#wakeAtUs = Infinity;
    this.step();
  }

  /** Reads the disk back. A torn tail is cut; undefined: the log is harmed before its end. */
  #recover(): FalconReplica | undefined {
    const { cluster, disk } = this;
    const replica = new FalconReplica(this.#settings());
    cluster.plant(replica, this);
    this.appliedIndex = disk.base.index;
    if (this.guest !== undefined && this.guest.appliedIndex < disk.base.index) this.guest.valid = false;
    for (let index = disk.base.index + 1; index <= disk.lastIndex; index++) {
      const bytes = disk.peek(index) ?? bug('A disk has no holes');
      if (!replica.restoreRecord(bytes, 0, bytes.length)) {
        if (index !== disk.lastIndex || !disk.tailMayBeTorn) return undefined;
        disk.cutTo(index - 1);
        break;
      }
      this.#applyCommitted(replica);
    }
    return replica;
  }

  /** The log is gone, term and vote are not: it comes back by the way of rejoin.ts. */
  loseLog(): void {
    this.cluster.checker.lost(this);
    this.disk.beginAt(this.firstBase);
    this.logLost = true;
  }

  #settings(): FalconSettings {
    const { cluster, disk } = this;
    const { durability } = cluster.plan;
    const { members } = disk.base;
    return {
      self: this.id,
      voters: members.voters,
      nonVoters: members.nonVoters,
      processNumber: disk.hard.processNumber,
      hardState: {
        clusterId: CLUSTER_ID,
        term: toTerm(disk.hard.term),
        votedFor: disk.hard.votedFor as ReplicaId,
      },
      base: disk.base,
      durability,
      ...(durability === 'disk' ? { olderRecords: disk } : {}),
      logLost: durability === 'memory' ? disk.hard.processNumber > 1 : this.logLost,
      times: cluster.times,
      logLimits: {
        storageBytes: cluster.plan.logStorageBytes,
        recordsMax: 2048,
        recordBytesMax: RECORD_BYTES_MAX,
      },
      crc32c: (bytes, offset, length, seed) => {
        this.#bytesChange();
        return crc32cByTables(bytes, offset, length, seed);
      },
      random: () => cluster.prng.fraction(),
    };
  }

  /** While a record is being checked, its writer may write over it: what was checked must be what is taken. */
  #bytesChange(): void {
    const checked = this.#checked;
    const { prng, network } = this.cluster;
    if (checked === undefined || network.plan.bytesChange === 0) return;
    if (!prng.chance(network.plan.bytesChange)) return;
    const at = prng.between(0, checked.length - 1);
    checked[at] = (checked[at] ?? 0) ^ (1 << prng.between(0, 7));
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
    const { log, state } = this.replica;
    this.cluster.checker.died(this, log, state.durableIndex);
    this.lastMembers = this.replica.members;
    this.replica = undefined;
    this.region = undefined;
    this.cluster.regions.delete(this.regionId);
    this.disk.crash(this.cluster.prng.chance(this.cluster.plan.tornTail));
    if (takesGuest) this.guest = undefined;
    this.cluster.processEnded(this);
  }

  /** The machine is gone for good, and all that it knew. */
  destroy(): void {
    if (this.replica !== undefined) this.crash(true);
    this.cluster.checker.lost(this);
    this.gone = true;
    this.guest = undefined;
    this.disk.beginAt(this.firstBase);
  }

  /** A checkpoint covers a part of what was applied here: the durable log begins behind it. */
  checkpoint(): void {
    const { replica, disk } = this;
    if (replica === undefined || disk.harmed) return;
    const index = this.cluster.prng.between(disk.base.index, Math.min(this.appliedIndex, disk.lastIndex));
    const bytes = disk.peek(index);
    if (bytes === undefined) return;
    const { executing, members } = replica.base;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const term = toTerm(view.getUint32(24, true));
    disk.dropThrough({
      index: toLogIndex(index),
      term,
      checksum: view.getInt32(20, true),
      executing,
      members,
    });
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
    this.#sleep(replica);
  }

  #pass(replica: FalconReplica): void {
    replica.tick(this.nowUs);
    this.#poll(replica);
    this.#takeRebase(replica);
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
    if (replica.role === 'leader') {
      for (const peer of this.cluster.hosts) if (peer !== this) this.#wire.ship(replica, peer.id);
    }
    this.#wire.signal(replica);
    this.#apply(replica);
  }

  #mayDie(): void {
    if (this.cluster.network.plan.dieMidStep === 0) return;
    if (!this.cluster.prng.chance(this.cluster.network.plan.dieMidStep)) return;
    if (this.cluster.plan.durability === 'disk' || this.cluster.mayLose(this))
      throw new Died('between two steps');
  }

  #poll(replica: FalconReplica): void {
    const { region } = this;
    for (const old of this.#oldRegions) this.#pollRing(replica, old);
    if (region !== undefined && replica.regionIsOpen(region.writer, toTerm(region.term))) {
      replica.readHeartbeat(region.writer, region.heartbeat, 0);
      this.#pollRing(replica, region);
    }
    if (replica.role !== 'leader') return;
    for (let peer = 0; peer < this.ackMemory.length; peer++) {
      const block = this.ackMemory[peer];
      if (block !== undefined) replica.readAck(toReplicaId(peer), block, 0);
    }
    replica.leaderProgress();
  }

  #pollRing(replica: FalconReplica, region: Region): void {
    while (region.waits) {
      const bytes = region.next;
      const result = bytes === undefined ? IntakeResult.harmed : this.#offer(replica, bytes);
      if (result === IntakeResult.harmed) {
        this.#stuck(replica, region);
        return;
      }
      if (result === IntakeResult.noRoom || result === IntakeResult.stale) return;
      region.consumed++;
      region.stuckSinceUs = -1;
    }
  }

  #offer(replica: FalconReplica, bytes: Uint8Array): number {
    // Only a private copy of what arrived may change under the check: others share these bytes.
    const source = this.cluster.network.plan.bytesChange === 0 ? bytes : bytes.slice();
    this.#checked = source;
    const result = replica.receiveRecord(source, 0, source.length);
    this.#checked = undefined;
    return result;
  }

  /** A record that should be there is not, or is harmed: after a while its region is given up. */
  #stuck(replica: FalconReplica, region: Region): void {
    const { nowUs } = this.cluster.queue;
    if (region.stuckSinceUs === -1) region.stuckSinceUs = nowUs;
    if (nowUs - region.stuckSinceUs >= REGION_PATIENCE_US) {
      replica.regionBroken();
      region.stuckSinceUs = nowUs;
    }
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
      if (this.readsOldRegions && this.region !== undefined) this.#oldRegions.push(this.region);
      else cluster.regions.delete(this.regionId);
      this.region = new Region(request.writer, request.term, cluster.plan.ringSlots);
      this.regionId = cluster.nextRegionId++;
      cluster.regions.set(this.regionId, this.region);
      replica.regionOpened(request.writer, request.term, uint32Bytes(this.regionId));
    }
  }

  #sendMessage(to: ReplicaId, bytes: Uint8Array): void {
    this.cluster.checker.said(this, bytes);
    const target = this.cluster.hosts[to];
    // A replica that was added before its machine runs.
    if (target === undefined) return;
    this.cluster.network.message(this.id, to, () => target.receive(this.id, bytes));
  }

  #persistRecords(replica: FalconReplica): void {
    const life = this.disk.hard.processNumber;
    for (let index = replica.nextToPersist(); index > 0; index = replica.nextToPersist()) {
      this.disk.write(
        index,
        replica.persistEpoch,
        this.#wire.copyOf(replica, index),
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

  /** What was put at this host arrives; where that takes its own progress, once it runs on. */
  arrive(action: () => void): void {
    const { queue, plan } = this.cluster;
    if (!plan.putsNeedProgress || queue.nowUs >= this.pausedUntilUs) action();
    else queue.at(this.pausedUntilUs, action);
  }

  #apply(replica: FalconReplica): void {
    this.cluster.checker.observe(this);
    this.#applyCommitted(replica);
    if (this.logLost && !replica.state.logLost) this.logLost = false;
  }

  #applyCommitted(replica: FalconReplica): void {
    const { log } = replica;
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
    if (this.cluster.plan.durability === 'disk') this.disk.beginAt(replica.base);
    this.appliedIndex = rebased;
    if (this.guest !== undefined && this.guest.appliedIndex < rebased) this.guest.valid = false;
    this.#tellExecutor();
    this.cluster.rebased();
  }

  #sleep(replica: FalconReplica): void {
    const deadlineUs = (replica.nextDeadlineUs - this.clockOffsetUs) / this.clockRate;
    const stuckUs = this.region === undefined ? -1 : this.region.stuckSinceUs;
    const patienceUs = stuckUs === -1 ? Infinity : stuckUs + REGION_PATIENCE_US;
    const { nowUs } = this.cluster.queue;
    this.#wakeWantedUs = Math.ceil(Math.max(Math.min(deadlineUs, patienceUs), nowUs)) + 50;
    if (this.#wakeWantedUs < this.#wakeAtUs || this.#wakeAtUs <= nowUs) this.#scheduleWake();
  }

  /** One wake-up is under way at a time; one that comes too early only sets the next. */
  #scheduleWake(): void {
    const { queue } = this.cluster;
    const atUs = Math.max(this.#wakeWantedUs, this.pausedUntilUs);
    this.#wakeAtUs = atUs;
    const life = this.disk.hard.processNumber;
    queue.at(atUs, () => {
      if (this.#wakeAtUs !== atUs || life !== this.disk.hard.processNumber) return;
      this.#wakeAtUs = Infinity;
      if (Math.max(this.#wakeWantedUs, this.pausedUntilUs) > queue.nowUs) this.#scheduleWake();
      else this.step();
    });
  }
}

function digestOf(digest: number, checksum: number): number {
  return (Math.imul(digest ^ checksum, 0x9e3779b1) ^ (digest >>> 15)) | 0;
}

function bug(text: string): never {
  throw new Error(text);
}
