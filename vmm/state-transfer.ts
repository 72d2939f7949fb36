/**
 * Moves a standing guest's whole state to a fresh one: every page that is not zero, the frames that wait for a
 * buffer, and the device state. Guarantees: the receiver loads only when all of it has arrived and its checksum
 * holds; the sender's guest stands until then, so both are equal at the record it names.
 */
import type { LogIndex } from './core/ids.ts';
import { readUint64, writeUint64 } from './core/falcon/record.ts';
import type { GuestPort } from './io/qemu/port.ts';
import { pageBytes } from './io/qemu/layout.ts';
import { MailKind } from './io/mail.ts';
import { messageBytesMax, type TransportPeer } from './io/transport/transport.ts';

const chunkHeaderBytes = 16;
const chunkPagesMax = Math.floor((messageBytesMax - chunkHeaderBytes) / pageBytes);
const wordsPerPage = pageBytes / 4;
/** What one pass does at most, so that heartbeats go out meanwhile. */
const partsPerPassMax = 4;
const scannedPagesPerPartMax = 4096;

/** Everything that travels page by page: the RAM blocks, then the deliver ring. */
function transferredMemory(port: GuestPort): readonly Uint8Array[] {
  return [...port.blocks.map((block) => new Uint8Array(block.memory)), port.deliver.data];
}

function pageIsZero(words: Int32Array, page: number): boolean {
  const end = (page + 1) * wordsPerPage;
  for (let at = page * wordsPerPage; at < end; at += 4) {
    if (((words[at] ?? 0) | (words[at + 1] ?? 0) | (words[at + 2] ?? 0) | (words[at + 3] ?? 0)) !== 0)
      return false;
  }
  return true;
}

interface Part {
  readonly kind: number;
  readonly bytes: Uint8Array;
}

function message(bytes: number): { readonly bytes: Uint8Array; readonly view: DataView } {
  const buffer = new ArrayBuffer(bytes);
  return { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

export class StateSender {
  readonly peer: TransportPeer;
  readonly index: LogIndex;
  readonly #parts: Generator<Part | undefined>;
  /** Undefined: the next part is still looked for. */
  #next: Part | undefined;
  #done = false;
  #sentBytes = 0;

  /** The guest behind `port` stands after the record `index`, and goes on standing until `sent`. */
  constructor(peer: TransportPeer, port: GuestPort, index: LogIndex) {
    this.peer = peer;
    this.index = index;
    this.#parts = stateParts(port, index);
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  get sent(): boolean {
    return this.#done;
  }

  /** Sends what the peer has room for, a bounded amount at a time. True when something went. */
  pump(): boolean {
    for (let parts = 0; parts < partsPerPassMax; parts++) {
      if (this.#next === undefined) {
        const next = this.#parts.next();
        if (next.done === true) {
          this.#done = true;
          return true;
        }
        this.#next = next.value;
      } else if (this.peer.send(this.#next.kind, this.#next.bytes)) {
        this.#sentBytes += this.#next.bytes.length;
        this.#next = undefined;
      } else {
        return parts > 0;
      }
    }
    return true;
  }
}

/** The state in parts; undefined where nothing was found to send for a while. */
function* stateParts(port: GuestPort, index: LogIndex): Generator<Part | undefined> {
  const stopped = port.pause();
  port.release(stopped.holdHead); // The NIC sends what it still had in hand when it is told of the stop.
  port.collect(); // The pages that are sent now are level: from here on dirty means changed since.
  const { bytes: stateBytes, checksum } = port.save();
  // Some of what devices know is in no saved state (which interrupts were signalled, the order of timers with the
  // same expiry). Loading resets it, so the sender loads its own state too: both go on from exactly the same.
  port.load(stateBytes, checksum);
  const begin = message(32);
  writeUint64(begin.view, 0, index);
  writeUint64(begin.view, 8, stopped.virtualNs);
  writeUint64(begin.view, 16, stopped.deliverTail);
  writeUint64(begin.view, 24, port.deliver.head);
  yield { kind: MailKind.stateBegin, bytes: begin.bytes };
  const memories = transferredMemory(port);
  for (const [block, memory] of memories.entries()) yield* pageParts(block, memory);
  for (let at = 0; at < stateBytes; at += messageBytesMax - chunkHeaderBytes) {
    const part = port.deviceState.subarray(at, Math.min(stateBytes, at + messageBytesMax - chunkHeaderBytes));
    const chunk = message(chunkHeaderBytes + part.length);
    writeUint64(chunk.view, 0, at);
    chunk.bytes.set(part, chunkHeaderBytes);
    yield { kind: MailKind.stateDevice, bytes: chunk.bytes };
  }
  const end = message(16);
  writeUint64(end.view, 0, stateBytes);
  writeUint64(end.view, 8, checksum);
  yield { kind: MailKind.stateEnd, bytes: end.bytes };
}

/** Runs of pages that are not zero. */
function* pageParts(block: number, memory: Uint8Array): Generator<Part | undefined> {
  const words = new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
  const pageCount = memory.byteLength / pageBytes;
  let page = 0;
  while (page < pageCount) {
    if (pageIsZero(words, page)) {
      page++;
      if (page % scannedPagesPerPartMax === 0) yield undefined;
      continue;
    }
    const first = page;
    while (page < pageCount && page - first < chunkPagesMax && !pageIsZero(words, page)) page++;
    const chunk = message(chunkHeaderBytes + (page - first) * pageBytes);
    writeUint64(chunk.view, 0, block);
    writeUint64(chunk.view, 8, first);
    chunk.bytes.set(memory.subarray(first * pageBytes, page * pageBytes), chunkHeaderBytes);
    yield { kind: MailKind.statePages, bytes: chunk.bytes };
  }
}

/** What the receiver knows once all is loaded. */
export interface LoadedState {
  readonly index: LogIndex;
  readonly virtualNs: number;
}

export class StateReceiver {
  readonly #port: GuestPort;
  readonly #memories: readonly Uint8Array[];
  #begun: (LoadedState & { readonly deliverTail: number; readonly deliverHead: number }) | undefined;

  constructor(port: GuestPort) {
    this.#port = port;
    this.#memories = transferredMemory(port);
  }

  /**
   * Only pages that are not zero travel, so what this side has in the others must go: firmware that QEMU put there
   * when it reset the machine, or what an earlier transfer left when it broke off.
   */
  #clear(): void {
    for (const memory of this.#memories) {
      const words = new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
      for (let page = 0; page < memory.byteLength / pageBytes; page++) {
        if (!pageIsZero(words, page)) memory.fill(0, page * pageBytes, (page + 1) * pageBytes);
      }
    }
  }

  /** Takes one message of a transfer; the last one returns what was loaded. */
  take(kind: number, bytes: Uint8Array): LoadedState | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    switch (kind) {
      case MailKind.stateBegin:
        this.#begin(view);
        return undefined;
      case MailKind.statePages: {
        const memory = this.#memories[readUint64(view, 0)];
        memory?.set(bytes.subarray(chunkHeaderBytes), readUint64(view, 8) * pageBytes);
        return undefined;
      }
      case MailKind.stateDevice:
        this.#port.deviceState.set(bytes.subarray(chunkHeaderBytes), readUint64(view, 0));
        return undefined;
      default:
        return this.#end(readUint64(view, 0), readUint64(view, 8));
    }
  }

  #begin(view: DataView): void {
    // A guest that has run is stopped so that its devices know, and what it would have sent is no longer its own.
    this.#port.drop(this.#port.pause().holdHead);
    this.#clear();
    this.#begun = {
      index: readUint64(view, 0) as LogIndex,
      virtualNs: readUint64(view, 8),
      deliverTail: readUint64(view, 16),
      deliverHead: readUint64(view, 24),
    };
  }

  #end(stateBytes: number, checksum: number): LoadedState | undefined {
    const begun = this.#begun;
    if (begun === undefined) return undefined;
    this.#port.deliver.moveTo(begun.deliverTail, begun.deliverHead);
    this.#port.load(stateBytes, checksum);
    this.#port.collect();
    return begun;
  }
}
