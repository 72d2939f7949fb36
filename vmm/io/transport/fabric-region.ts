/**
 * Regions of the fabric transport. The reader's memory is written by one peer within one session; it is read only
 * while it is the open region of a session that lasts. A writer that does not know yet that its region was closed
 * still puts into memory which nobody reads, and which stays registered until that peer says that it has left: to
 * take it away earlier would break the connection that carries everything else.
 */
import type { FabricEndpoint } from '../../../native/fabric.ts';
import { RingConsumer, type RingProducer } from '../ring.ts';
import { FabricRing } from './fabric-ring.ts';
import { signalBytesMax, type RegionReader, type RegionWriter } from './transport.ts';

export const regionRingBytes = 1 << 24;

/** What a writer needs to fill a region. */
interface RegionKey {
  /** Of the session that the region belongs to, as its reader named it. */
  readonly session: number;
  readonly serial: number;
  readonly memoryKey: Uint8Array;
}

const keyBytes = 24;

function encodeRegionKey(key: RegionKey): Uint8Array {
  const bytes = new Uint8Array(keyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, key.session, true);
  view.setUint32(4, key.serial, true);
  bytes.set(key.memoryKey, 8);
  return bytes;
}

/** Undefined: these bytes are no key of a region. */
export function decodeRegionKey(bytes: Uint8Array): RegionKey | undefined {
  if (bytes.length !== keyBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, keyBytes);
  return {
    session: view.getUint32(0, true),
    serial: view.getUint32(4, true),
    memoryKey: bytes.slice(8),
  };
}

/** What a region needs of the session it belongs to. */
interface RegionSession {
  readonly failed: boolean;
  regionClosed(region: FabricRegionReader): void;
  regionLeft(region: FabricRegionWriter): void;
  flush(): void;
  putHeartbeat(block: Uint8Array): void;
}

export class FabricRegionReader implements RegionReader {
  readonly key: Uint8Array;
  readonly serial: number;
  readonly memory: number;
  readonly heartbeat = new Uint8Array(signalBytesMax);
  readonly records: RingConsumer;
  readonly #session: RegionSession;
  readonly #head = new Uint32Array(1);
  #closed = false;

  constructor(
    endpoint: FabricEndpoint,
    session: RegionSession,
    identity: { readonly session: number; readonly serial: number },
    creditWords: Uint32Array,
    creditWord: number,
  ) {
    this.#session = session;
    this.serial = identity.serial;
    this.memory = endpoint.addMemory(regionRingBytes);
    this.key = encodeRegionKey({ ...identity, memoryKey: endpoint.memoryKey(this.memory) });
    const data = new Uint8Array(endpoint.memoryBuffer(this.memory));
    this.records = new RingConsumer(data, this.#head, 0, creditWords, creditWord);
  }

  get failed(): boolean {
    return this.#session.failed;
  }

  /** The writer, filling this very region, said so. */
  advance(head: number, heartbeat: Uint8Array): void {
    if (this.#closed) return;
    this.#head[0] = head;
    this.heartbeat.set(heartbeat);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session.regionClosed(this);
  }
}

export class FabricRegionWriter implements RegionWriter {
  readonly serial: number;
  readonly ring: FabricRing;
  readonly memory: number;
  readonly remote: number;
  readonly #session: RegionSession;
  #closed = false;

  constructor(
    endpoint: FabricEndpoint,
    session: RegionSession,
    peer: number,
    key: RegionKey,
    token: number,
    readTail: () => number,
  ) {
    this.#session = session;
    this.serial = key.serial;
    this.remote = endpoint.addRemote(peer, key.memoryKey);
    try {
      this.memory = endpoint.addMemory(regionRingBytes);
    } catch (error) {
      endpoint.removeRemote(this.remote);
      throw error;
    }
    const copy = { memory: this.memory, offset: 0, bytes: regionRingBytes };
    this.ring = new FabricRing(endpoint, copy, { remote: this.remote, offset: 0 }, token, readTail);
  }

  get records(): RingProducer {
    return this.ring.producer;
  }

  get failed(): boolean {
    return this.#closed || this.#session.failed;
  }

  flush(): void {
    this.#session.flush();
  }

  putHeartbeat(block: Uint8Array): void {
    this.#session.putHeartbeat(block);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session.regionLeft(this);
  }
}
