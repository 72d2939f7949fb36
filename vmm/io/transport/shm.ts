/**
 * The transport for replicas on one machine: a put is a store. Every replica owns, per peer, one *inbox* that
 * only this peer writes; a leader writes records into a *region* that its backup made for it and its term.
 *
 *   inbox, written by the peer:
 *     word 0 ring head          word 1 credit: how far the peer has read this replica's messages
 *     word 2 region serial      word 3 credit: how far the peer has read that region
 *     word 4 1 while the peer sleeps and wants its doorbell rung
 *     byte 64 ack block         byte 128 ring of messages
 *
 *   region, written by the leader of its term:
 *     byte 0 heartbeat block    word 16 ring head      byte 128 ring of records
 *
 * Guarantees: messages of a peer arrive whole, once and in order, as long as both processes live; a region that
 * was closed is never read again. Throughput ends at a full ring: `send` and `room` then say so, nobody waits.
 */
import { closeSync, openSync, constants } from 'node:fs';
import { native } from '../../../native/binding.ts';
import type { ReplicaId } from '../../core/ids.ts';
import { RingConsumer, RingProducer } from '../ring.ts';
import { mapPeerMemory, OwnMemory, type MemoryKey } from './shm-memory.ts';

const word = { head: 0, messageCredit: 1, regionSerial: 2, regionCredit: 3, asleep: 4 } as const;
const ackOffset = 64;
const inboxRingOffset = 128;
const inboxRingBytes = 1 << 20;
const regionHeadWord = 16;
const regionRingOffset = 128;
const regionRingBytes = 1 << 24;
/** Largest message: two must fit, so that a ring always moves. */
export const messageBytesMax = inboxRingBytes / 2 - 64;

/** What a replica tells its peers, so that they can reach it. */
export interface ShmAddress {
  readonly pid: number;
  readonly doorbellFd: number;
  /** By peer: the inbox that this peer writes. */
  readonly inboxes: Readonly<Record<number, MemoryKey>>;
}

class Inbox {
  readonly memory: OwnMemory;
  readonly words: Uint32Array;
  readonly ack: Uint8Array;

  constructor(name: string) {
    this.memory = new OwnMemory(name, inboxRingOffset + inboxRingBytes, 0);
    this.words = new Uint32Array(this.memory.buffer, 0, 16);
    this.ack = new Uint8Array(this.memory.buffer, ackOffset, 64);
  }

  ring(): Uint8Array {
    return new Uint8Array(this.memory.buffer, inboxRingOffset, inboxRingBytes);
  }
}

/** A region that this replica made for a leader: heartbeats and records to read. */
export class RegionReader {
  readonly key: MemoryKey;
  readonly heartbeat: Uint8Array;
  readonly records: RingConsumer;
  readonly #memory: OwnMemory;

  constructor(serial: number, leaderWords: Uint32Array) {
    this.#memory = new OwnMemory('gaia-region', regionRingOffset + regionRingBytes, serial);
    this.key = this.#memory.key;
    const { buffer } = this.#memory;
    this.heartbeat = new Uint8Array(buffer, 0, 64);
    Atomics.store(leaderWords, word.regionCredit, 0);
    Atomics.store(leaderWords, word.regionSerial, serial);
    this.records = new RingConsumer(
      new Uint8Array(buffer, regionRingOffset, regionRingBytes),
      new Uint32Array(buffer, 0, 32),
      regionHeadWord,
      leaderWords,
      word.regionCredit,
    );
  }

  close(): void {
    this.#memory.close();
  }
}

/** A peer's region, open for this replica to write. */
export class RegionWriter {
  readonly heartbeat: Uint8Array;
  readonly records: RingProducer;
  readonly #buffer: ArrayBuffer;

  constructor(key: MemoryKey, ownWords: Uint32Array) {
    this.#buffer = mapPeerMemory(key);
    this.heartbeat = new Uint8Array(this.#buffer, 0, 64);
    this.records = new RingProducer(
      new Uint8Array(this.#buffer, regionRingOffset, regionRingBytes),
      new Uint32Array(this.#buffer, 0, 32),
      regionHeadWord,
      () =>
        Atomics.load(ownWords, word.regionSerial) === key.serial
          ? Atomics.load(ownWords, word.regionCredit)
          : 0,
    );
  }

  close(): void {
    native().memoryUnmap(this.#buffer);
  }
}

/** One peer as this replica sees it. */
export class ShmPeer {
  readonly id: ReplicaId;
  /** Written by the peer. */
  readonly inbox: Inbox;
  /** Readable once the peer's process has ended. */
  readonly pidFd: number;
  readonly messages: RingConsumer;
  /** Where this replica's ack goes. */
  readonly ack: Uint8Array;
  readonly #words: Uint32Array;
  readonly #remote: ArrayBuffer;
  readonly #producer: RingProducer;
  readonly #doorbellFd: number;

  constructor(id: ReplicaId, inbox: Inbox, address: ShmAddress, key: MemoryKey) {
    this.id = id;
    this.inbox = inbox;
    this.pidFd = native().pidfdOpen(address.pid);
    this.#remote = mapPeerMemory(key);
    this.#words = new Uint32Array(this.#remote, 0, 16);
    this.#doorbellFd = openSync(
      `/proc/${address.pid}/fd/${address.doorbellFd}`,
      constants.O_WRONLY | constants.O_NONBLOCK,
    );
    this.ack = new Uint8Array(this.#remote, ackOffset, 64);
    this.#producer = new RingProducer(
      new Uint8Array(this.#remote, inboxRingOffset, inboxRingBytes),
      this.#words,
      word.head,
      () => Atomics.load(inbox.words, word.messageCredit),
    );
    this.messages = new RingConsumer(inbox.ring(), inbox.words, word.head, this.#words, word.messageCredit);
  }

  /** False: the ring is full now. */
  send(kind: number, payload: Uint8Array): boolean {
    if (!this.#producer.push(kind, payload)) return false;
    this.wake();
    return true;
  }

  /** Rings the peer's doorbell if it sleeps. To be called after every put. */
  wake(): void {
    if (Atomics.load(this.inbox.words, word.asleep) !== 1) return;
    try {
      native().ring(this.#doorbellFd, 'pipe');
    } catch (error) {
      // A peer that has ended hears nothing; that it ended is told by its pidfd.
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    }
  }

  /** Tells the peer whether it must ring. */
  setAsleep(asleep: boolean): void {
    Atomics.store(this.#words, word.asleep, asleep ? 1 : 0);
  }

  openRegion(serial: number): RegionReader {
    return new RegionReader(serial, this.#words);
  }

  attachRegion(key: MemoryKey): RegionWriter {
    return new RegionWriter(key, this.inbox.words);
  }

  close(): void {
    native().memoryUnmap(this.#remote);
    closeSync(this.#doorbellFd);
    closeSync(this.pidFd);
  }
}

export class ShmTransport {
  readonly self: ReplicaId;
  /** Readable when a peer, or this process's main thread, has rung. */
  readonly doorbellFd: number;
  readonly #doorbellWriteFd: number;
  readonly #inboxes = new Map<ReplicaId, Inbox>();
  readonly #peers = new Map<ReplicaId, ShmPeer>();
  #regionSerial = 0;

  constructor(self: ReplicaId, peers: readonly ReplicaId[]) {
    this.self = self;
    [this.doorbellFd, this.#doorbellWriteFd] = native().pipeCreate();
    for (const peer of peers) this.#inboxes.set(peer, new Inbox(`gaia-inbox-${self}-${peer}`));
  }

  get address(): ShmAddress {
    const inboxes: Record<number, MemoryKey> = {};
    for (const [peer, inbox] of this.#inboxes) inboxes[peer] = inbox.memory.key;
    return { pid: process.pid, doorbellFd: this.#doorbellWriteFd, inboxes };
  }

  /** From now on this peer can be reached. Throws when it is gone or does not know this replica. */
  connect(id: ReplicaId, address: ShmAddress): ShmPeer {
    const inbox = this.#inboxes.get(id);
    const key = address.inboxes[this.self];
    if (inbox === undefined || key === undefined)
      throw new Error(`Replica ${id} is not a peer of ${this.self}`);
    const peer = new ShmPeer(id, inbox, address, key);
    this.#peers.set(id, peer);
    return peer;
  }

  peer(id: ReplicaId): ShmPeer | undefined {
    return this.#peers.get(id);
  }

  peers(): IterableIterator<ShmPeer> {
    return this.#peers.values();
  }

  nextRegionSerial(): number {
    return ++this.#regionSerial;
  }
}
