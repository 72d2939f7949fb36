/**
 * How replicas reach each other: messages, acks, records and heartbeats, whatever carries them. Implementations:
 * `shm` (shm.ts) for replicas on one machine, `fabric` (fabric.ts) for replicas that share nothing. One suite,
 * test/native/transport.test.ts, holds both to what is promised here.
 *
 * Guarantees, for each pair of processes that were connected with each other's cards:
 *  - messages arrive whole, once and in order, or the peer is reported as gone;
 *  - a record is seen whole or not at all, and after those put before it. What arrives may still be harmed on a
 *    transport that does not keep bytes safe: records carry their own checksum, and the core looks at it;
 *  - the ack and heartbeat blocks are overwritten in place, the newest wins; each carries its own checksum;
 *  - a region is written by one peer, for one term. After `close` nothing of it is ever read again, however late
 *    its writer wakes up and goes on putting;
 *  - nothing here waits: a full ring says so.
 */
import { GaiaError } from '../../core/errors.ts';
import type { ReplicaId } from '../../core/ids.ts';
import type { RingConsumer, RingProducer } from '../ring.ts';

/** Largest message, in bytes. */
export const messageBytesMax = (1 << 19) - 64;
/** Bytes that an ack or a heartbeat may have. */
export const signalBytesMax = 64;

/** What a replica tells one peer so that it can be reached: plain JSON, opaque but to the transport that made it. */
export type PeerCard = Readonly<Record<string, unknown>>;

export class TransportError extends GaiaError {}

/** Messages of one peer. */
export interface MessageReader {
  /** Finds the oldest message that was not consumed. False: there is none now. */
  next(): boolean;
  /** Kind of the message found. */
  readonly kind: number;
  /** A private copy of its payload. */
  copy(): Uint8Array;
  consume(): void;
}

/** A region that this replica opened for one peer. */
export interface RegionReader {
  /** What the writer needs to attach it. */
  readonly key: Uint8Array;
  /** The newest heartbeat, `signalBytesMax` bytes; may be torn. */
  readonly heartbeat: Uint8Array;
  /** May throw `RingHarmedError` where a transport lost something: then a fresh region is needed. */
  readonly records: RingConsumer;
  /** The session with the writer has ended: nothing more arrives. */
  readonly failed: boolean;
  /** From now on nothing that the writer puts can be seen. */
  close(): void;
}

/** A peer's region, open for this replica to write. */
export interface RegionWriter {
  readonly records: RingProducer;
  /** A put failed: nothing that follows arrives. */
  readonly failed: boolean;
  /** Sends off the records committed since, and wakes the peer if it sleeps. */
  flush(): void;
  putHeartbeat(block: Uint8Array): void;
  close(): void;
}

/** One peer as this replica sees it. */
export interface TransportPeer {
  readonly id: ReplicaId;
  readonly messages: MessageReader;
  /** The peer's newest ack, `signalBytesMax` bytes; may be torn. */
  readonly ack: Uint8Array;
  /** False: no room now. Up to `messageBytesMax` bytes. */
  send(kind: number, payload: Uint8Array): boolean;
  /** Overwrites this replica's ack in the peer's memory. */
  putAck(block: Uint8Array): void;
  /** Fresh memory that this peer alone may write. */
  openRegion(): RegionReader;
  /** Throws when the key is not of this peer's making, or the peer is gone. */
  attachRegion(key: Uint8Array): RegionWriter;
}

export interface Transport {
  readonly self: ReplicaId;
  /** The writing end of a pipe: whoever rings it ends this replica's wait. */
  readonly wakeFd: number;
  /** Descriptors whose readability ends a wait; another array whenever they change. */
  readonly waitFds: readonly number[];

  /**
   * The card for one process of this peer, with fresh memory behind it: what an earlier process of the peer
   * wrote, or still writes, is not read any more.
   */
  invite(peer: ReplicaId): PeerCard;
  /** From now on the peer can be reached. Throws `TransportError` when the card is not for this replica. */
  connect(peer: ReplicaId, card: PeerCard): void;
  /** The peer while it is connected. */
  peer(id: ReplicaId): TransportPeer | undefined;
  /** All that are connected: another array whenever they change. */
  peers(): readonly TransportPeer[];

  /** Moves what has to be moved by hand; to be called once per pass. */
  progress(nowUs: number): void;
  /** Asks the peers to wake this replica. What came before is found by looking once more. */
  prepareWait(): void;
  /** Between that look and the wait itself. False: look again. */
  readonly mayWait: boolean;
  /** After the wait: `isReadable` tells of each of `waitFds`. */
  endWait(isReadable: (fd: number) => boolean): void;
  /** A peer whose process has ended, or that can no longer be reached in this session; each is told once. */
  takeGone(): ReplicaId | undefined;
  /** What ended the newest session with this peer, for people; undefined: nothing worth telling. */
  failureOf(id: ReplicaId): string | undefined;
  close(): void;
}
