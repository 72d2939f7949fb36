/** What one simulated process puts into the memory of others: records, heartbeats, acks. */
import { recordMemory } from '../../vmm/core/falcon/record.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { ACK_BYTES, HEARTBEAT_BYTES } from '../../vmm/core/falcon/signal.ts';
import { toLogIndex, type ReplicaId } from '../../vmm/core/ids.ts';
import { HOSTS_MAX, RECORD_BYTES_MAX, type HostWorld, type Machine } from './host-world.ts';

interface RecordCopy {
  readonly index: number;
  /** The header checksum, which covers who wrote the record and what it says. */
  readonly word: number;
  readonly bytes: Uint8Array;
}

const COPIES = 64;
const RECORD_HEADER_CHECKSUM_AT = 4;

/** Names of places in a region: its records by their slot, and its heartbeat. */
const PLACES_PER_REGION = 1024;
const HEARTBEAT_PLACE = PLACES_PER_REGION - 1;

export class Wire {
  readonly #host: Machine;
  readonly #cluster: HostWorld;
  readonly #scratch = recordMemory(new Uint8Array(64));
  readonly #catchUp = recordMemory(new Uint8Array(RECORD_BYTES_MAX));
  /** Copies of the newest records, shared by the disk and all peers: nobody writes into them. */
  readonly #copies: RecordCopy[] = [];
  #ships: { version: number; slot: number }[] = [];

  constructor(host: Machine, cluster: HostWorld) {
    this.#host = host;
    this.#cluster = cluster;
  }

  /** A new process knows of no region yet. */
  reset(): void {
    this.#ships = Array.from({ length: HOSTS_MAX }, () => ({ version: 0, slot: 0 }));
  }

  copyOf(replica: FalconReplica, index: number): Uint8Array {
    const { log } = replica;
    const at = log.offsetAt(toLogIndex(index));
    const word = log.memory.view.getInt32(at + RECORD_HEADER_CHECKSUM_AT, true);
    const known = this.#copies[index % COPIES];
    if (known?.index === index && known.word === word) return known.bytes;
    const bytes = this.#cluster.arena.copy(log.memory.bytes, at, log.bytesAt(toLogIndex(index)));
    this.#copies[index % COPIES] = { index, word, bytes };
    return bytes;
  }

  ship(replica: FalconReplica, peer: ReplicaId): void {
    const key = replica.peerRegion(peer);
    const cursor = this.#ships[peer];
    if (key === undefined || cursor === undefined) return;
    const version = replica.peerRegionVersion(peer);
    if (version !== cursor.version) {
      cursor.version = version;
      cursor.slot = 0;
    }
    const region = this.#cluster.regions.get(uint32Of(key));
    const room = (): boolean => region?.hasRoomFor(cursor.slot) === true;
    for (let index = replica.needsCatchUp(peer); index > 0 && room(); index = replica.needsCatchUp(peer)) {
      const length = replica.readToShip(index, this.#catchUp, 0);
      if (length === 0) break;
      this.#putRecord(
        peer,
        uint32Of(key),
        cursor.slot++,
        this.#cluster.arena.copy(this.#catchUp.bytes, 0, length),
      );
      replica.shipped(peer, index);
    }
    for (let index = replica.nextToShip(peer); index > 0 && room(); index = replica.nextToShip(peer)) {
      replica.offsetToShip(index);
      this.#putRecord(peer, uint32Of(key), cursor.slot++, this.copyOf(replica, index));
      replica.shipped(peer, index);
    }
  }

  #putRecord(peer: ReplicaId, regionId: number, slot: number, bytes: Uint8Array): void {
    const place = (regionId + 1) * PLACES_PER_REGION + (slot % this.#cluster.plan.ringSlots);
    this.#put(peer, place, bytes, (target, arrived) => {
      const region = this.#cluster.regions.get(regionId);
      if (region === undefined) return;
      region.write(slot, arrived);
      target.step();
    });
  }

  #put(
    peer: ReplicaId,
    place: number,
    bytes: Uint8Array,
    land: (target: Machine, arrived: Uint8Array) => void,
  ): void {
    const target = this.#cluster.host(peer);
    const life = this.#host.disk.hard.processNumber;
    this.#cluster.network.put(
      this.#host.id,
      peer,
      place,
      bytes,
      (arrived) => target.arrive(() => land(target, arrived)),
      () => {
        if (life === this.#host.disk.hard.processNumber) this.#host.replica?.regionLost(peer);
      },
    );
  }

  signal(replica: FalconReplica): void {
    const cluster = this.#cluster;
    if (replica.heartbeatDue) {
      replica.writeHeartbeat(this.#scratch, 0);
      const bytes = cluster.arena.copy(this.#scratch.bytes, 0, HEARTBEAT_BYTES);
      for (const peer of cluster.hosts) {
        const key = peer === this.#host ? undefined : replica.peerRegion(peer.id);
        if (key !== undefined) this.#putHeartbeat(peer.id, uint32Of(key), bytes);
      }
      replica.heartbeatWritten();
    }
    if (!replica.ackDue) return;
    cluster.checker.acked(this.#host);
    replica.writeAck(this.#scratch, 0);
    const bytes = cluster.arena.copy(this.#scratch.bytes, 0, ACK_BYTES);
    const life = uint32Of(replica.leaderAckKey);
    this.#put(replica.state.region.writer, this.#host.id, bytes, (leader, arrived) => {
      if (leader.disk.hard.processNumber !== life || !leader.running) return;
      (leader.ackMemory[this.#host.id] ??= new Uint8Array(ACK_BYTES)).set(arrived);
      leader.step();
    });
  }

  #putHeartbeat(peer: ReplicaId, regionId: number, bytes: Uint8Array): void {
    this.#put(peer, (regionId + 1) * PLACES_PER_REGION + HEARTBEAT_PLACE, bytes, (target, arrived) => {
      this.#cluster.regions.get(regionId)?.heartbeat.set(arrived);
      target.step();
    });
  }
}

export function uint32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function uint32Of(bytes: Uint8Array): number {
  return bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}
