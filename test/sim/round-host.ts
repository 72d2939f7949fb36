/**
 * One simulated machine of the round simulator: a disk that keeps what it is given, a guest, and while it runs an
 * agent with the real Falcon core and the real round loop in it. Disks and torn puts are the other simulator's.
 */
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import { recordMemory } from '../../vmm/core/falcon/record.ts';
import { IntakeResult } from '../../vmm/core/falcon/intake.ts';
import { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { ACK_BYTES, HEARTBEAT_BYTES } from '../../vmm/core/falcon/signal.ts';
import { NO_REPLICA, toLogIndex, toReplicaId, toTerm, type ReplicaId } from '../../vmm/core/ids.ts';
import { RoundExchange } from '../../vmm/core/rounds/round-exchange.ts';
import { RoundLoop } from '../../vmm/core/rounds/round-loop.ts';
import type { RoundMail, RoundWorld } from '../../vmm/core/rounds/round-parts.ts';
import type { ExchangeOutcome } from '../../vmm/core/rounds/round-report.ts';
import { RoundRecordType } from '../../vmm/core/rounds/round-record.ts';
import { PAGE_BYTES, RoundGuest } from './round-guest.ts';
import { SimRunner } from './round-runner.ts';
import type { RoundWorldOfHosts, SimHost } from './round-world.ts';

/** The agent is gone in the middle of something. */
class Died extends Error {}

/** Memory that one leader of one term writes into. */
interface Region {
  readonly writer: ReplicaId;
  readonly term: number;
  readonly records: Uint8Array[];
  readonly heartbeat: Uint8Array;
}

const RECORD_BYTES_MAX = 4096;
const VERIFY_EVERY_ROUNDS = 3;
const LEAD_MAX = 4;

export class RoundHost implements RoundWorld, SimHost {
  readonly id: ReplicaId;
  readonly world: RoundWorldOfHosts;
  readonly executes: boolean;
  readonly disk = { term: 0, votedFor: NO_REPLICA as number, records: [] as Uint8Array[] };
  /** Counts the agents of this machine. */
  life = 0;
  replica: FalconReplica | undefined;
  loop: RoundLoop | undefined;
  exchange: RoundExchange | undefined;
  runner: SimRunner | undefined;
  guest: RoundGuest | undefined;
  incarnation = 0;
  pausedUntilUs = 0;
  /** A planted bug: a guest that an agent finds is believed to be what it was. */
  trustsWhatItFinds = false;
  region: Region | undefined;
  readonly acks = new Map<number, Uint8Array>();
  readonly #block = recordMemory(new Uint8Array(64));
  readonly #catchUp = recordMemory(new Uint8Array(RECORD_BYTES_MAX));
  #wakeAtUs = Infinity;
  #proposeAtUs = 0;
  #roundsSinceVerification = 0;

  constructor(world: RoundWorldOfHosts, id: ReplicaId, executes: boolean) {
    this.world = world;
    this.id = id;
    this.executes = executes;
  }

  readonly transferable = true;

  get paused(): boolean {
    return this.world.queue.nowUs < this.pausedUntilUs;
  }

  get nowUs(): number {
    return this.world.queue.nowUs;
  }

  start(): void {
    const { world, disk } = this;
    this.life++;
    const replica = new FalconReplica({
      self: this.id,
      voters: world.voters,
      processNumber: this.life,
      hardState: { clusterId: 1n, term: toTerm(disk.term), votedFor: disk.votedFor as ReplicaId },
      base: {
        index: toLogIndex(0),
        term: toTerm(0),
        checksum: 0,
        executing: [{ replica: toReplicaId(0), incarnation: 1 }],
      },
      durability: 'disk',
      olderRecords: {
        firstIndex: 1,
        read: (index, target, at) => {
          const bytes = disk.records[index - 1];
          if (bytes !== undefined) target.bytes.set(bytes, at);
          return bytes?.length ?? 0;
        },
      },
      times: world.times,
      logLimits: { storageBytes: 1 << 20, recordsMax: 8192, recordBytesMax: RECORD_BYTES_MAX },
      crc32c: crc32cByTables,
      random: () => world.prng.fraction(),
    });
    for (const bytes of disk.records) replica.restoreRecord(bytes, 0, bytes.length);
    this.replica = replica;
    this.region = undefined;
    this.acks.clear();
    replica.setAckMemoryKey(wordBytes(this.life));
    if (this.executes) this.#claimGuest(replica);
    replica.start(this.nowUs);
    this.#wakeAtUs = Infinity;
    this.step();
  }

  /** The first guest of all is VALID by definition; one that an agent finds, or a new one, has to be made equal. */
  #claimGuest(replica: FalconReplica): void {
    const { world } = this;
    if (this.guest === undefined) {
      this.runner = undefined;
      this.guest = new RoundGuest(world.plan.pageCount, world.registry);
      this.incarnation++;
    }
    const { guest } = this;
    const set = guest.claimSet();
    const first = this.id === 0 && this.incarnation === 1 && this.life === 1;
    set.valid = first || (set.valid && this.trustsWhatItFinds);
    guest.held = [];
    guest.beforeStore = () => {
      if (world.prng.chance(world.network.plan.dieAtStore) && world.mayDie(this)) throw new Died();
    };
    const { appliedIndex } = this.runner ?? { appliedIndex: toLogIndex(0) };
    this.runner = new SimRunner(this, guest);
    if (this.trustsWhatItFinds && !first) this.runner.appliedIndex = appliedIndex;
    this.exchange = new RoundExchange(guest, set, {
      crc32c: crc32cByTables,
      partBytes: world.plan.partBytes,
      stagingBytesMax: 1 << 20,
      resendUs: 5_000,
      link: { roundTripUs: 10, bytesPerUs: 1000 },
      session: this.life,
      // Too few for all pages: the oldest go.
      commonBytes: 24 * PAGE_BYTES,
      surveyLeftPages: 4,
    });
    this.loop = new RoundLoop({
      mode: world.plan.mode,
      self: this.id,
      incarnation: this.incarnation,
      falcon: replica,
      guest: this.runner,
      exchange: this.exchange,
      world: this,
      times: { stallUs: 120_000, leftBehindUs: 150_000, askAgainUs: 20_000, tellAgainUs: 20_000 },
    });
    world.plant(this);
  }

  crash(takesGuest: boolean): void {
    if (this.replica === undefined) return;
    this.replica = undefined;
    this.loop = undefined;
    this.exchange = undefined;
    this.region = undefined;
    this.life++;
    this.runner?.abort();
    if (takesGuest) this.guest = undefined;
    this.world.processEnded(this);
  }

  /** What came while the machine stood still is taken up when it goes on. */
  whenAwake(action: () => void): void {
    if (this.replica === undefined) return;
    if (!this.paused) {
      action();
      this.step();
      return;
    }
    const { life } = this;
    this.world.queue.at(this.pausedUntilUs, () => {
      if (life === this.life) this.whenAwake(action);
    });
  }

  step(): void {
    const { replica } = this;
    if (replica === undefined || this.paused) return;
    this.guarded(() => {
      this.#pass(replica);
      this.world.checker.observe(this);
    });
    if (this.replica !== undefined) this.#sleep(replica);
  }

  guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof Died)) throw error;
      this.crash(this.world.prng.chance(this.world.plan.crashTakesGuest));
    }
  }

  #pass(replica: FalconReplica): void {
    replica.tick(this.nowUs);
    this.#poll(replica);
    const rebased = replica.takeRebased();
    if (rebased !== undefined) this.loop?.rebased(rebased);
    if (this.loop === undefined) {
      replica.applied(replica.commitIndex);
    } else this.loop.pass(this.nowUs);
    this.#mayDie();
    if (replica.hardStateDirty) {
      const { term, votedFor } = replica.hardState();
      this.disk.term = term;
      this.disk.votedFor = votedFor;
      replica.hardStatePersisted();
    }
    for (let request = replica.takeRegionRequest(); request; request = replica.takeRegionRequest()) {
      const { writer, term } = request;
      this.region = { writer, term, records: [], heartbeat: new Uint8Array(HEARTBEAT_BYTES) };
      replica.regionOpened(writer, term, wordBytes(this.world.nameRegion(this.region)));
    }
    for (let message = replica.takeMessage(); message !== undefined; message = replica.takeMessage()) {
      const { to, bytes } = message;
      const target = this.world.host(to);
      this.world.network.message(this.id, to, () =>
        target.whenAwake(() => target.replica?.receive(this.id, bytes)),
      );
      this.#mayDie();
    }
    this.#persist(replica);
    for (const peer of this.world.voters) if (peer !== this.id) this.#ship(replica, peer);
    this.#signal(replica);
  }

  /** In the middle of whatever its agent does. */
  die(): never {
    throw new Died();
  }

  #mayDie(): void {
    const { world } = this;
    if (world.prng.chance(world.network.plan.dieMidStep) && world.mayDie(this)) throw new Died();
  }

  #poll(replica: FalconReplica): void {
    const { region } = this;
    if (region !== undefined && replica.regionIsOpen(region.writer, toTerm(region.term))) {
      replica.readHeartbeat(region.writer, region.heartbeat, 0);
      while (region.records.length > 0) {
        const bytes = region.records[0] ?? new Uint8Array(0);
        const result = replica.receiveRecord(bytes, 0, bytes.length);
        if (result === IntakeResult.noRoom || result === IntakeResult.stale) break;
        region.records.shift();
        if (result === IntakeResult.harmed) replica.regionBroken();
      }
    }
    if (replica.role !== 'leader') return;
    for (const [peer, block] of this.acks) replica.readAck(toReplicaId(peer), block, 0);
    replica.leaderProgress();
  }

  #persist(replica: FalconReplica): void {
    for (let index = replica.nextToPersist(); index > 0; index = replica.nextToPersist()) {
      const at = replica.log.offsetAt(index);
      this.disk.records.length = index - 1;
      this.disk.records[index - 1] = replica.log.memory.bytes.slice(at, at + replica.log.bytesAt(index));
      replica.handedToPersist(index);
      replica.durable(index, replica.persistEpoch);
    }
  }

  #ship(replica: FalconReplica, peer: ReplicaId): void {
    const key = replica.peerRegion(peer);
    if (key === undefined) return;
    const region = this.world.regionNamed(wordOf(key)) as Region | undefined;
    for (let index = replica.needsCatchUp(peer); index > 0; index = replica.needsCatchUp(peer)) {
      const length = replica.readToShip(index, this.#catchUp, 0);
      if (length === 0) break;
      this.#put(peer, region, this.#catchUp.bytes.slice(0, length));
      replica.shipped(peer, index);
    }
    for (let index = replica.nextToShip(peer); index > 0; index = replica.nextToShip(peer)) {
      const at = replica.offsetToShip(index);
      this.#put(peer, region, replica.log.memory.bytes.slice(at, at + replica.log.bytesAt(index)));
      replica.shipped(peer, index);
    }
  }

  #put(peer: ReplicaId, region: Region | undefined, bytes: Uint8Array): void {
    const target = this.world.host(peer);
    this.world.network.put(this.id, peer, () => {
      region?.records.push(bytes);
      target.step();
    });
  }

  #signal(replica: FalconReplica): void {
    const { world } = this;
    if (replica.heartbeatDue) {
      replica.writeHeartbeat(this.#block, 0);
      const bytes = this.#block.bytes.slice(0, HEARTBEAT_BYTES);
      for (const peer of world.voters) {
        const key = peer === this.id ? undefined : replica.peerRegion(peer);
        if (key === undefined) continue;
        const region = world.regionNamed(wordOf(key)) as Region | undefined;
        world.network.put(this.id, peer, () => {
          region?.heartbeat.set(bytes);
          world.host(peer).step();
        });
      }
      replica.heartbeatWritten();
    }
    if (!replica.ackDue) return;
    replica.writeAck(this.#block, 0);
    const bytes = this.#block.bytes.slice(0, ACK_BYTES);
    const leader = world.host(replica.state.region.writer);
    const life = wordOf(replica.leaderAckKey);
    world.network.put(this.id, leader.id, () => {
      if (leader.life !== life) return;
      leader.acks.set(this.id, bytes);
      leader.step();
    });
  }

  #sleep(replica: FalconReplica): void {
    const roundsUs = this.loop === undefined ? Infinity : this.loop.deadlineUs;
    const proposeUs = replica.mayServe ? this.#proposeAtUs : Infinity;
    const atUs = Math.max(Math.min(replica.nextDeadlineUs, roundsUs, proposeUs), this.nowUs) + 20;
    if (this.#wakeAtUs <= atUs && this.#wakeAtUs > this.nowUs) return;
    this.#wakeAtUs = atUs;
    const { life } = this;
    this.world.queue.at(Math.max(atUs, this.pausedUntilUs), () => {
      if (this.#wakeAtUs === atUs) this.#wakeAtUs = Infinity;
      if (life === this.life) this.step();
    });
  }

  // What the loop asks for -----------------------------------------------------------------------------

  send(to: ReplicaId, mail: RoundMail, bytes: Uint8Array): boolean {
    const copy = bytes.slice();
    const target = this.world.host(to);
    this.world.network.message(this.id, to, () =>
      target.whenAwake(() => {
        target.guarded(() => target.loop?.receive(this.id, mail, copy, target.nowUs));
        if (target.replica !== undefined) this.world.checker.observe(target);
      }),
    );
    return true;
  }

  propose(nowUs: number): boolean {
    const { replica, loop, runner, exchange, world } = this;
    if (replica === undefined || loop === undefined || runner === undefined) return false;
    if (nowUs < this.#proposeAtUs) return false;
    const { partner } = loop.partners;
    if (partner !== undefined && loop.partners.lag(partner) > LEAD_MAX) return false;
    if (loop.repairing)
      return typeof replica.propose(RoundRecordType.reconciliation, 0, new Uint8Array(0)) === 'number';
    if (world.plan.mode === 'lockstep' && partner !== undefined && exchange?.leader.underWay === false) {
      if (++this.#roundsSinceVerification > VERIFY_EVERY_ROUNDS) {
        this.#roundsSinceVerification = 0;
        return typeof replica.propose(RoundRecordType.verification, 0, new Uint8Array(0)) === 'number';
      }
    }
    const payload = new Uint8Array(8 + world.prng.between(0, 24));
    for (let at = 8; at < payload.length; at++) payload[at] = world.prng.between(0, 255);
    const view = new DataView(payload.buffer);
    view.setUint32(0, world.nextRequest(), true);
    view.setUint32(4, runner.appliedIndex, true);
    const proposed = typeof replica.propose(RoundRecordType.round, 1, payload) === 'number';
    if (proposed) {
      this.#proposeAtUs = nowUs + world.prng.between(0, world.plan.proposeIdleUsMax);
      world.checker.proposed(this);
    }
    return proposed;
  }

  proposeAhead(): boolean {
    return this.world.plan.proposesAhead && this.propose(this.nowUs);
  }

  guestEnded(): void {
    // Simulated guests never end.
  }

  exchanged(leads: boolean, outcome: ExchangeOutcome): void {
    this.world.checker.exchanged(this, leads, outcome.type);
  }

  event(): void {
    // People read events, the checkers look for themselves.
  }
}

function wordBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function wordOf(bytes: Uint8Array): number {
  return bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
