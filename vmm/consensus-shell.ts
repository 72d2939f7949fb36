/**
 * The shell around the Falcon core: feeds it what lies in memory and carries out what it asks for, in the order
 * that `FalconReplica` documents. Guarantees: term and vote are on disk before any message that depends on them
 * leaves, with `disk` durability records before their acks; a closed region is never read again.
 */
import { native } from '../native/binding.ts';
import { crc32cWith } from './core/falcon/crc32c.ts';
import { IntakeResult } from './core/falcon/intake.ts';
import type { CopyBytes } from './core/falcon/log.ts';
import type { RegionRequest } from './core/falcon/read-region.ts';
import { recordMemory } from './core/falcon/record.ts';
import { FalconReplica } from './core/falcon/replica.ts';
import { DEFAULT_LOG_LIMITS, DEFAULT_TIMES } from './core/falcon/settings.ts';
import { ACK_BYTES, HEARTBEAT_BYTES } from './core/falcon/signal.ts';
import type { LogIndex, ReplicaId, Term } from './core/ids.ts';
import type { LogBaseState } from './io/log/segment-format.ts';
import { MailKind } from './io/mail.ts';
import { RingHarmedError, type RingConsumer } from './io/ring.ts';
import type { RegionReader, RegionWriter, Transport, TransportPeer } from './io/transport/transport.ts';
import { ReplicaStorage } from './replica-storage.ts';

/** Records taken or shipped in one pass at most, so that no input waits for a long backlog. */
const recordsPerPassMax = 64;
const recordKind = 1;
/** The largest record, header included. */
const recordBytesMax = 1 << 20;

export interface ConsensusSettings {
  readonly self: ReplicaId;
  readonly voters: readonly ReplicaId[];
  /** Whose guest the new VM begins with. */
  readonly firstExecutor: ReplicaId;
  readonly durability: 'disk' | 'memory';
  readonly clusterId: bigint;
  /** Of the log; private to this replica. */
  readonly folder: string;
  readonly hardStateFile: string;
}

interface OpenRegion {
  readonly writer: ReplicaId;
  readonly term: Term;
  readonly reader: RegionReader;
}

interface AttachedRegion {
  readonly version: number;
  readonly writer: RegionWriter;
}

export class ConsensusShell {
  readonly falcon: FalconReplica;
  readonly #transport: Transport;
  readonly #storage: ReplicaStorage;
  /** A record on its way from the durable log to a backup. */
  readonly #older = recordMemory(new Uint8Array(recordBytesMax));
  readonly #block = recordMemory(new Uint8Array(64));
  readonly #ackBlock = this.#block.bytes.subarray(0, ACK_BYTES);
  readonly #heartbeatBlock = this.#block.bytes.subarray(0, HEARTBEAT_BYTES);
  readonly #copyBytes: CopyBytes;
  /** By peer. */
  readonly #attached: (AttachedRegion | undefined)[] = [];
  #region: OpenRegion | undefined;
  #regionWanted: RegionRequest | undefined;

  constructor(settings: ConsensusSettings, transport: Transport) {
    const { self, voters, firstExecutor, durability, clusterId, folder, hardStateFile } = settings;
    this.#transport = transport;
    const { crc32cAt, copyBytes } = native();
    this.#copyBytes = copyBytes;
    const crc32c = crc32cWith(crc32cAt);
    const firstBase: LogBaseState = {
      index: 0 as LogIndex,
      term: 0 as Term,
      checksum: 0,
      executing: [{ replica: firstExecutor, incarnation: 1 }],
      members: { voters, nonVoters: [] },
    };
    this.#storage = new ReplicaStorage(
      { durability, clusterId, self, folder, hardStateFile, crc32c, firstBase },
      ({ base, processNumber, hardState, logLost, olderRecords }) =>
        new FalconReplica({
          ...{ self, processNumber, hardState, base, durability, logLost, crc32c, copyBytes },
          ...base.members,
          ...(olderRecords === undefined ? {} : { olderRecords }),
          times: DEFAULT_TIMES,
          logLimits: { ...DEFAULT_LOG_LIMITS, recordBytesMax },
          random: Math.random,
        }),
    );
    this.falcon = this.#storage.falcon;
  }

  /** Number of this process among those of its replica, from 1. */
  get processNumber(): number {
    return this.#storage.processNumber;
  }

  /** What is kept on disk, and how the disk is. */
  get storage(): ReplicaStorage {
    return this.#storage;
  }

  /** Takes heartbeats, records and acks, and what has become durable. True when there was something. */
  takeInputs(): boolean {
    const { falcon } = this;
    let worked = this.#storage.poll(falcon.state.nowUs);
    worked = this.#takeRecords() || worked;
    if (falcon.role === 'leader') {
      for (const peer of this.#transport.peers()) worked = falcon.readAck(peer.id, peer.ack, 0) || worked;
    }
    return worked;
  }

  /** True when records or a heartbeat may lie in memory unread. */
  get inputWaits(): boolean {
    return this.#region?.reader.records.hasEntry ?? false;
  }

  #takeRecords(): boolean {
    const { falcon } = this;
    const region = this.#region;
    if (region === undefined || !falcon.regionIsOpen(region.writer, region.term)) return false;
    if (region.reader.failed) {
      falcon.regionBroken();
      return true;
    }
    falcon.readHeartbeat(region.writer, region.reader.heartbeat, 0);
    const { records } = region.reader;
    let taken = 0;
    while (taken < recordsPerPassMax && this.#findRecord(records)) {
      const result = falcon.receiveRecord(records.data, records.offset, records.length);
      if (result === IntakeResult.noRoom || result === IntakeResult.stale) break;
      records.consume();
      taken++;
      if (result === IntakeResult.harmed) {
        falcon.regionBroken();
        break;
      }
    }
    return taken > 0;
  }

  /** Where a transport lost bytes, what follows makes no sense: a fresh region is asked for. */
  #findRecord(records: RingConsumer): boolean {
    try {
      return records.next();
    } catch (error) {
      if (!(error instanceof RingHarmedError)) throw error;
      this.falcon.regionBroken();
      return false;
    }
  }

  /**
   * Sends a heartbeat that is due. Backups hear of a commit before this replica's guest runs by it: a QEMU that is woken
   * may take the core on which it would have been told.
   */
  tellCommit(): void {
    if (this.falcon.heartbeatDue) this.#sendHeartbeat();
  }

  /** Carries out what the core asks for. True when something left. */
  carryOut(): boolean {
    const { falcon } = this;
    let worked = this.#storage.persistHardState();
    this.#regionWanted = falcon.takeRegionRequest() ?? this.#regionWanted;
    if (this.#regionWanted !== undefined) worked = this.#openRegion(this.#regionWanted) || worked;
    for (let message = falcon.takeMessage(); message !== undefined; message = falcon.takeMessage()) {
      this.#transport.peer(message.to)?.send(MailKind.falcon, message.bytes);
      worked = true;
    }
    // What is written here while it is on its way to the backups has cost no time.
    worked = this.#storage.persist() || worked;
    if (falcon.ackDue) worked = this.#sendAck() || worked;
    if (falcon.role !== 'leader') return worked;
    for (const peer of this.#transport.peers()) worked = this.#ship(peer) || worked;
    this.tellCommit();
    return worked;
  }

  /** False: its writer is not connected now, so the request stands until it is, or another replaces it. */
  #openRegion({ writer, term }: RegionRequest): boolean {
    this.#region?.reader.close();
    this.#region = undefined;
    const peer = this.#transport.peer(writer);
    if (peer === undefined) return false;
    this.#regionWanted = undefined;
    const reader = peer.openRegion();
    this.#region = { writer, term, reader };
    this.falcon.regionOpened(writer, term, reader.key);
    return true;
  }

  /** The peer's region, attached anew when the core knows a newer one. */
  #regionOf(peer: TransportPeer): RegionWriter | undefined {
    const { falcon } = this;
    const key = falcon.peerRegion(peer.id);
    if (key === undefined) return undefined;
    const attached = this.#attached[peer.id];
    const version = falcon.peerRegionVersion(peer.id);
    if (attached?.version === version && !attached.writer.failed) return attached.writer;
    attached?.writer.close();
    this.#attached[peer.id] = undefined;
    if (attached?.version === version) {
      falcon.regionLost(peer.id);
      return undefined;
    }
    try {
      const writer = peer.attachRegion(key);
      this.#attached[peer.id] = { version, writer };
      return writer;
    } catch {
      // The peer has ended since, or made another region: the core asks it again.
      falcon.regionLost(peer.id);
      return undefined;
    }
  }

  #ship(peer: TransportPeer): boolean {
    const { falcon } = this;
    const region = this.#regionOf(peer);
    if (region === undefined) return false;
    let shipped = this.#shipOlder(peer, region);
    for (let index = falcon.nextToShip(peer.id); index !== 0; index = falcon.nextToShip(peer.id)) {
      const bytes = falcon.log.bytesAt(index);
      const at = shipped < recordsPerPassMax ? region.records.reserve(bytes) : -1;
      if (at === -1) break;
      const from = falcon.offsetToShip(index);
      this.#copyBytes(region.records.data, at, falcon.log.memory.bytes, from, bytes);
      region.records.commit(recordKind, bytes);
      falcon.shipped(peer.id, index);
      shipped++;
    }
    if (shipped > 0) region.flush();
    return shipped > 0;
  }

  /** What this peer lacks and memory no longer holds comes from the durable log. Returns how many records. */
  #shipOlder(peer: TransportPeer, region: RegionWriter): number {
    const { falcon } = this;
    let shipped = 0;
    for (let index = falcon.needsCatchUp(peer.id); index !== 0; index = falcon.needsCatchUp(peer.id)) {
      const at = shipped < recordsPerPassMax ? region.records.reserve(recordBytesMax) : -1;
      const bytes = at === -1 ? 0 : falcon.readToShip(index, this.#older, 0);
      if (bytes === 0) break;
      this.#copyBytes(region.records.data, at, this.#older.bytes, 0, bytes);
      region.records.commit(recordKind, bytes);
      falcon.shipped(peer.id, index);
      shipped++;
    }
    return shipped;
  }

  #sendHeartbeat(): void {
    this.falcon.writeHeartbeat(this.#block, 0);
    for (const peer of this.#transport.peers()) {
      this.#regionOf(peer)?.putHeartbeat(this.#heartbeatBlock);
    }
    this.falcon.heartbeatWritten();
  }

  #sendAck(): boolean {
    const leader = this.#region === undefined ? undefined : this.#transport.peer(this.#region.writer);
    if (leader === undefined) return false;
    this.falcon.writeAck(this.#block, 0);
    leader.putAck(this.#ackBlock);
    return true;
  }
}
