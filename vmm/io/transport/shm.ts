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
 *     byte 0 heartbeat block    word 16 ring head      word 17 its serial, by its owner
 *     byte 128 ring of records
 *
 * Guarantees: messages of a peer arrive whole, once and in order, as long as both processes live; a region that
 * was closed is never read again. Throughput ends at a full ring: `send` and `room` then say so, nobody waits.
 */
import { closeSync, openSync, constants } from 'node:fs';
import { native } from '../../../native/binding.ts';
import type { ReplicaId } from '../../core/ids.ts';
import { RingConsumer, RingProducer } from '../ring.ts';
import { decodeMemoryKey, encodeMemoryKey, mapPeerMemory, OwnMemory, type MemoryKey } from './shm-memory.ts';
import {
  signalBytesMax,
  TransportError,
  type PeerCard,
  type RegionReader,
  type RegionWriter,
  type Transport,
  type TransportPeer,
} from './transport.ts';

const word = { head: 0, messageCredit: 1, regionSerial: 2, regionCredit: 3, asleep: 4 } as const;
const ackOffset = 64;
const inboxRingOffset = 128;
const inboxRingBytes = 1 << 20;
const regionHeadWord = 16;
const regionSerialWord = 17;
const regionRingOffset = 128;
const regionRingBytes = 1 << 24;
const lifeBytes = 4096;

/** A card of this transport: the process, its doorbell and the inbox that the addressed peer writes. */
interface ShmCard {
  readonly transport: 'shm';
  readonly from: number;
  readonly to: number;
  readonly pid: number;
  readonly doorbellFd: number;
  readonly inbox: MemoryKey;
  /** The page whose words the kernel clears as the process ends. */
  readonly life: MemoryKey;
}

class Inbox {
  readonly memory: OwnMemory;
  readonly words: Uint32Array;
  readonly ack: Uint8Array;

  constructor(name: string) {
    this.memory = new OwnMemory(name, inboxRingOffset + inboxRingBytes, 0);
    this.words = new Uint32Array(this.memory.buffer, 0, 16);
    this.ack = new Uint8Array(this.memory.buffer, ackOffset, signalBytesMax);
  }

  ring(): Uint8Array {
    return new Uint8Array(this.memory.buffer, inboxRingOffset, inboxRingBytes);
  }
}

class ShmRegionReader implements RegionReader {
  readonly key: Uint8Array;
  readonly heartbeat: Uint8Array;
  readonly records: RingConsumer;
  readonly failed = false;
  readonly #memory: OwnMemory;

  constructor(serial: number, writerWords: Uint32Array) {
    this.#memory = new OwnMemory('gaia-region', regionRingOffset + regionRingBytes, serial);
    this.key = encodeMemoryKey(this.#memory.key);
    const { buffer } = this.#memory;
    this.heartbeat = new Uint8Array(buffer, 0, signalBytesMax);
    const words = new Uint32Array(buffer, 0, 32);
    Atomics.store(words, regionSerialWord, serial);
    Atomics.store(writerWords, word.regionCredit, 0);
    Atomics.store(writerWords, word.regionSerial, serial);
    this.records = new RingConsumer(
      new Uint8Array(buffer, regionRingOffset, regionRingBytes),
      words,
      regionHeadWord,
      writerWords,
      word.regionCredit,
    );
  }

  close(): void {
    this.#memory.close();
  }
}

class ShmRegionWriter implements RegionWriter {
  readonly records: RingProducer;
  readonly failed = false;
  readonly #heartbeat: Uint8Array;
  readonly #buffer: ArrayBuffer;
  readonly #peer: ShmPeer;

  constructor(peer: ShmPeer, key: MemoryKey, ownWords: Uint32Array) {
    this.#peer = peer;
    this.#buffer = mapPeerMemory(key);
    const words = new Uint32Array(this.#buffer, 0, 32);
    // A closed region's descriptor may be the next one's by now.
    if (Atomics.load(words, regionSerialWord) !== key.serial) {
      native().memoryUnmap(this.#buffer);
      throw new TransportError(
        'GAIA_REGION_KEY',
        `Replica ${peer.id} has closed its region ${key.serial}, whose key is of no use any more`,
      );
    }
    this.#heartbeat = new Uint8Array(this.#buffer, 0, signalBytesMax);
    this.records = new RingProducer(
      new Uint8Array(this.#buffer, regionRingOffset, regionRingBytes),
      words,
      regionHeadWord,
      () =>
        Atomics.load(ownWords, word.regionSerial) === key.serial
          ? Atomics.load(ownWords, word.regionCredit)
          : 0,
    );
  }

  flush(): void {
    this.#peer.wake();
  }

  putHeartbeat(block: Uint8Array): void {
    this.#heartbeat.set(block);
    this.#peer.wake();
  }

  close(): void {
    native().memoryUnmap(this.#buffer);
  }
}

class ShmPeer implements TransportPeer {
  readonly id: ReplicaId;
  readonly ack: Uint8Array;
  readonly messages: RingConsumer;
  /** Readable once the peer's process has ended. */
  readonly pidFd: number;
  readonly #pid: number;
  readonly #nextSerial: () => number;
  /** Written by the peer. */
  readonly #inbox: Inbox;
  readonly #remoteAck: Uint8Array;
  readonly #words: Uint32Array;
  readonly #producer: RingProducer;
  readonly #doorbellFd: number;
  readonly #life: Uint32Array;

  constructor(id: ReplicaId, inbox: Inbox, card: ShmCard, nextSerial: () => number) {
    this.id = id;
    this.#inbox = inbox;
    this.#pid = card.pid;
    this.#nextSerial = nextSerial;
    this.pidFd = native().pidfdOpen(card.pid);
    const remote = mapPeerMemory(card.inbox);
    this.#life = new Uint32Array(mapPeerMemory(card.life), 0, 2);
    this.#words = new Uint32Array(remote, 0, 16);
    this.#doorbellFd = openSync(
      `/proc/${card.pid}/fd/${card.doorbellFd}`,
      constants.O_WRONLY | constants.O_NONBLOCK,
    );
    this.ack = inbox.ack;
    this.#remoteAck = new Uint8Array(remote, ackOffset, signalBytesMax);
    this.#producer = new RingProducer(
      new Uint8Array(remote, inboxRingOffset, inboxRingBytes),
      this.#words,
      word.head,
      () => Atomics.load(inbox.words, word.messageCredit),
    );
    this.messages = new RingConsumer(inbox.ring(), inbox.words, word.head, this.#words, word.messageCredit);
  }

  /** Its process is being ended: nothing it does counts any more. Known sooner than by its pidfd. */
  get ends(): boolean {
    return Atomics.load(this.#life, 0) === 0 || Atomics.load(this.#life, 1) === 0;
  }

  send(kind: number, payload: Uint8Array): boolean {
    if (!this.#producer.push(kind, payload)) return false;
    this.wake();
    return true;
  }

  putAck(block: Uint8Array): void {
    this.#remoteAck.set(block);
    this.wake();
  }

  /** Rings the peer's doorbell if it sleeps. To be called after every put. */
  wake(): void {
    if (Atomics.load(this.#inbox.words, word.asleep) !== 1) return;
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

  openRegion(): RegionReader {
    return new ShmRegionReader(this.#nextSerial(), this.#words);
  }

  attachRegion(bytes: Uint8Array): RegionWriter {
    const key = decodeMemoryKey(bytes);
    if (key.pid !== this.#pid)
      throw new TransportError(
        'GAIA_REGION_KEY',
        `Replica ${this.id} runs as process ${this.#pid}, its region's key names ${key.pid}`,
      );
    return new ShmRegionWriter(this, key, this.#inbox.words);
  }

  /** Whoever still holds this object writes where nobody reads; the memory goes with the last of them. */
  close(): void {
    closeSync(this.#doorbellFd);
    closeSync(this.pidFd);
    this.#inbox.memory.abandon();
  }
}

export class ShmTransport implements Transport {
  readonly self: ReplicaId;
  readonly wakeFd: number;
  readonly mayWait = true;
  readonly #doorbellFd: number;
  /** Made for a peer that has not connected yet. */
  readonly #invited = new Map<ReplicaId, Inbox>();
  readonly #peers = new Map<ReplicaId, ShmPeer>();
  #all: readonly ShmPeer[] = [];
  /** Ended, and told or about to be told: their memory stays mapped, since what they sent last may be unread. */
  readonly #ended = new Set<ReplicaId>();
  readonly #gone: ReplicaId[] = [];
  readonly #nextSerial = (): number => ++this.#regionSerial;
  #regionSerial = 0;
  #waitFds: readonly number[];

  constructor(self: ReplicaId) {
    this.self = self;
    [this.#doorbellFd, this.wakeFd] = native().pipeCreate();
    this.#waitFds = [this.#doorbellFd];
  }

  get waitFds(): readonly number[] {
    return this.#waitFds;
  }

  invite(peer: ReplicaId): PeerCard {
    this.#invited.get(peer)?.memory.close();
    const inbox = new Inbox(`gaia-inbox-${this.self}-${peer}`);
    this.#invited.set(peer, inbox);
    const card: ShmCard = {
      transport: 'shm',
      from: this.self,
      to: peer,
      pid: process.pid,
      doorbellFd: this.wakeFd,
      inbox: inbox.memory.key,
      life: { pid: process.pid, fd: native().lifeMemory(), bytes: lifeBytes, serial: 0 },
    };
    return { ...card };
  }

  connect(id: ReplicaId, card: PeerCard): void {
    const inbox = this.#invited.get(id);
    if (inbox === undefined || !isShmCard(card) || card.from !== id || card.to !== this.self)
      throw new TransportError(
        'GAIA_PEER_CARD',
        `The card of replica ${id} is not one that shared memory gives to replica ${this.self}: start all replicas with the same transport, each with an id of its own`,
      );
    const peer = new ShmPeer(id, inbox, card, this.#nextSerial);
    this.#invited.delete(id);
    this.#peers.get(id)?.close();
    this.#ended.delete(id);
    this.#peers.set(id, peer);
    this.#all = [...this.#peers.values()];
    this.#watch();
  }

  peer(id: ReplicaId): TransportPeer | undefined {
    return this.#peers.get(id);
  }

  peers(): readonly TransportPeer[] {
    return this.#all;
  }

  /** A put is a store, so nothing has to be moved. */
  progress(): void {
    for (const peer of this.#all) if (peer.ends) this.#noteEnd(peer);
  }

  #noteEnd(peer: ShmPeer): void {
    if (this.#ended.has(peer.id)) return;
    this.#ended.add(peer.id);
    this.#gone.push(peer.id);
    this.#watch();
  }

  prepareWait(): void {
    for (const peer of this.#all) peer.setAsleep(true);
  }

  endWait(isReadable: (fd: number) => boolean): void {
    if (isReadable(this.#doorbellFd)) native().drain(this.#doorbellFd);
    for (const peer of this.#all) {
      peer.setAsleep(false);
      if (isReadable(peer.pidFd)) this.#noteEnd(peer);
    }
  }

  takeGone(): ReplicaId | undefined {
    return this.#gone.shift();
  }

  failureOf(id: ReplicaId): string | undefined {
    return this.#ended.has(id) ? 'its process has ended' : undefined;
  }

  close(): void {
    for (const peer of this.#peers.values()) peer.close();
    for (const inbox of this.#invited.values()) inbox.memory.close();
    this.#peers.clear();
    this.#all = [];
    this.#invited.clear();
    closeSync(this.#doorbellFd);
    closeSync(this.wakeFd);
  }

  #watch(): void {
    const alive = [...this.#peers.values()].filter(({ id }) => !this.#ended.has(id));
    this.#waitFds = [this.#doorbellFd, ...alive.map(({ pidFd }) => pidFd)];
  }
}

function isShmCard(card: PeerCard): card is PeerCard & ShmCard {
  const { transport, pid, doorbellFd, inbox, life } = card as Partial<ShmCard>;
  return (
    transport === 'shm' &&
    typeof pid === 'number' &&
    typeof doorbellFd === 'number' &&
    typeof inbox?.fd === 'number' &&
    typeof life?.fd === 'number'
  );
}
