/**
 * Moves a running guest's whole state to a fresh one. First its memory travels while the guest runs on: every page
 * that is not zero, then, pass by pass, what has changed since. When little is left, the guest stands, and the rest
 * follows with the frames that wait for a buffer and the device state. Guarantees: what changed during a pass is
 * sent in a later one; the receiver loads only when all of it has arrived and its checksum holds; the sender's guest
 * stands from `finish` on until then, so both are equal at the record that `finish` names.
 */
import { writeUint64 } from '../core/falcon/record.ts';
import type { LogIndex } from '../core/ids.ts';
import { countBits, uniteInto } from '../../merkle/bitmap.ts';
import { pageBytes } from '../io/qemu/layout.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { MailKind } from '../io/mail.ts';
import type { TransportPeer } from '../io/transport/transport.ts';
import { pagesInBitmap, pagesNotZero, type PageRun } from './page-scan.ts';
import { chunkBytesMax, chunkHeaderBytes, transferredMemory } from './transferred-pages.ts';

/** What one pass of the engine's loop sends at most: a running guest's rounds go before. */
const messagesPerPump = { running: 1, standing: 4 } as const;
/** The guest may stand for so many pages: 8 MiB are copied in a few milliseconds. */
const pagesLeftMax = 2048;
/** A guest that changes its memory faster than it travels stands for more. */
const passesMax = 6;

interface Message {
  readonly kind: number;
  readonly bytes: Uint8Array;
}

export class StateSender {
  readonly peer: TransportPeer;
  readonly #port: GuestPort;
  readonly #memories: readonly Uint8Array[];
  /** Invariant: every page that changed since it was sent last is set here or in the port's dirty log. */
  readonly #changed: Uint32Array;
  #messages: Generator<Message | undefined>;
  /** Undefined: the next one is still looked for. */
  #next: Message | undefined;
  #exhausted = false;
  #passes = 0;
  #index: LogIndex | undefined;
  #sentBytes = 0;
  #done = false;

  /** The guest behind `port` stands between two rounds. */
  constructor(peer: TransportPeer, port: GuestPort) {
    this.peer = peer;
    this.#port = port;
    this.#memories = transferredMemory(port);
    this.#changed = new Uint32Array(port.dirtyBitmap.length);
    port.collect(); // From here on dirty means changed since the first pass began.
    this.#messages = this.#firstPass();
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** The record after which the guest stands; undefined while it runs on. */
  get index(): LogIndex | undefined {
    return this.#index;
  }

  /** A pass is through, and the guest must stand for what comes next: `nextPass`. */
  get wantsNextPass(): boolean {
    return this.#exhausted && this.#index === undefined;
  }

  get sent(): boolean {
    return this.#done;
  }

  /** Somebody else has collected these dirty pages meanwhile. */
  addDirty(words: Uint32Array): void {
    uniteInto(this.#changed, words);
  }

  /** The guest stands after the record `index`: begins another pass, or the last one, for which it goes on standing. */
  nextPass(index: LogIndex): void {
    this.#port.collect();
    uniteInto(this.#changed, this.#port.dirtyBitmap);
    this.#passes++;
    this.#exhausted = false;
    if (countBits(this.#changed) > pagesLeftMax && this.#passes < passesMax) {
      this.#messages = this.#changedPages();
      return;
    }
    this.#index = index;
    this.#messages = this.#lastPass(index);
  }

  /** Sends what the peer has room for, a bounded amount at a time. True when something went. */
  pump(): boolean {
    if (this.#exhausted || this.#done) return false;
    const messagesMax = this.#index === undefined ? messagesPerPump.running : messagesPerPump.standing;
    for (let sent = 0; sent < messagesMax; sent++) {
      if (this.#next === undefined) {
        const next = this.#messages.next();
        if (next.done === true) {
          this.#exhausted = true;
          this.#done = this.#index !== undefined;
          return true;
        }
        this.#next = next.value;
        continue;
      }
      if (!this.peer.send(this.#next.kind, this.#next.bytes)) return sent > 0;
      this.#sentBytes += this.#next.bytes.length;
      this.#next = undefined;
    }
    return true;
  }

  *#firstPass(): Generator<Message | undefined> {
    yield { kind: MailKind.stateAhead, bytes: new Uint8Array(0) };
    for (const [number, memory] of this.#blocks()) {
      for (const run of pagesNotZero(memory)) yield pageMessage(number, memory, run);
    }
  }

  /** Takes the changed pages over: what changes from now on is another pass's. */
  *#changedPages(): Generator<Message | undefined> {
    const changed = this.#changed.slice();
    this.#changed.fill(0);
    for (const [number, memory] of this.#blocks()) {
      const { bitmapBit = 0, pageCount = 0 } = this.#port.blocks[number] ?? {};
      for (const run of pagesInBitmap(changed, bitmapBit, pageCount)) yield pageMessage(number, memory, run);
    }
  }

  *#lastPass(index: LogIndex): Generator<Message | undefined> {
    const port = this.#port;
    const stopped = port.pause();
    port.release(stopped.holdHead); // The NIC sends what it still had in hand when it is told of the stop.
    const { bytes: stateBytes, checksum } = port.save();
    // Some of what devices know is in no saved state (which interrupts were signalled, the order of timers with the
    // same expiry). Loading resets it, so the sender loads its own state too: both go on from exactly the same.
    port.load(stateBytes, checksum);
    port.collect(); // What the stop and the load have touched.
    uniteInto(this.#changed, port.dirtyBitmap);
    const begin = emptyMessage(MailKind.stateBegin, 32);
    writeUint64(begin.view, 0, index);
    writeUint64(begin.view, 8, stopped.virtualNs);
    writeUint64(begin.view, 16, stopped.deliverTail);
    writeUint64(begin.view, 24, port.deliver.head);
    yield begin;
    yield* this.#changedPages();
    const ring = this.#memories.length - 1;
    for (const run of ringPages(port.deliver.data, stopped.deliverTail, port.deliver.head))
      yield pageMessage(ring, port.deliver.data, run);
    for (let at = 0; at < stateBytes; at += chunkBytesMax) {
      const part = port.deviceState.subarray(at, Math.min(stateBytes, at + chunkBytesMax));
      const chunk = emptyMessage(MailKind.stateDevice, chunkHeaderBytes + part.length);
      writeUint64(chunk.view, 0, at);
      chunk.bytes.set(part, chunkHeaderBytes);
      yield chunk;
    }
    const end = emptyMessage(MailKind.stateEnd, 16);
    writeUint64(end.view, 0, stateBytes);
    writeUint64(end.view, 8, checksum);
    yield end;
  }

  #blocks(): [number, Uint8Array][] {
    return [...this.#memories.slice(0, -1).entries()];
  }
}

/** The pages of the ring that hold what is between the two positions. */
function* ringPages(ring: Uint8Array, tail: number, head: number): Generator<PageRun> {
  const pages = ring.byteLength / pageBytes;
  const from = tail & (ring.byteLength - 1);
  const first = Math.floor(from / pageBytes);
  const last = Math.ceil((from + ((head - tail) >>> 0)) / pageBytes);
  for (let page = first; page < last; page++) yield { first: page % pages, count: 1 };
}

function pageMessage(number: number, memory: Uint8Array, run: PageRun | undefined): Message | undefined {
  if (run === undefined) return undefined;
  const { first, count } = run;
  const chunk = emptyMessage(MailKind.statePages, chunkHeaderBytes + count * pageBytes);
  writeUint64(chunk.view, 0, number);
  writeUint64(chunk.view, 8, first);
  chunk.bytes.set(memory.subarray(first * pageBytes, (first + count) * pageBytes), chunkHeaderBytes);
  return chunk;
}

function emptyMessage(kind: number, bytes: number): Message & { readonly view: DataView } {
  const buffer = new ArrayBuffer(bytes);
  return { kind, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}
