/**
 * The agent's end of QEMU's gaia port: the guest's memory, its rings of frames and the requests it answers.
 * Guarantees: nothing of the area is believed before magic, version and sizes agree; a refusal by QEMU is a
 * `PortRefusedError` with QEMU's own words; once QEMU hangs up, or harms the ring of input, every call that needs it
 * says so.
 */
import { closeSync, fstatSync } from 'node:fs';
import { native } from '../../../native/binding.ts';
import { readUint64, writeUint64 } from '../../core/falcon/record.ts';
import { GaiaError } from '../../core/errors.ts';
import { RingConsumer, RingProducer } from '../ring.ts';
import * as layout from './layout.ts';
import { whyNoArea } from './port-area.ts';

const answerTimeoutUs = 10_000_000;

/** What QEMU did or failed to do. Nobody but its own guest suffers from it. */
export abstract class PortError extends GaiaError {}

/** QEMU refused a request and did nothing. */
export class PortRefusedError extends PortError {
  constructor(text: string) {
    super('GAIA_PORT_REFUSED', `QEMU refused: ${text}`);
  }
}

/** QEMU hung up, does not answer, or does what it never may. */
export class PortLostError extends PortError {
  constructor(what: string) {
    super('GAIA_PORT_LOST', `QEMU's gaia port ${what}`);
  }
}

/** Frames that came for the guest, as QEMU puts them. */
class IngressRing extends RingConsumer {
  /** One that is longer would fit into no round, and keep back all behind it. */
  protected override get payloadBytesMax(): number {
    return layout.frameBytesMax;
  }

  protected override harmed(position: number, bytes: number): Error {
    return new PortLostError(
      `has harmed its ring of input: the entry at position ${position} claims ${bytes} bytes`,
    );
  }
}

/** One migratable RAM block of the guest, mapped. */
export interface GuestBlock {
  readonly name: string;
  readonly memory: ArrayBuffer;
  readonly bytes: number;
  /** Pages that the bitmaps cover. */
  readonly pageCount: number;
  /** Its first bit in the bitmaps, a multiple of 64. */
  readonly bitmapBit: number;
}

/** How far a round may go; it ends by whichever comes first, or by `stop` and `pause`. */
export interface RoundLimits {
  /** Virtual instant in ns; exact in lockstep. */
  readonly untilVirtualNs?: number;
  /** End when the guest has taken all input that it has room for, waits, and has nothing under way. */
  readonly untilIdle?: boolean;
  /** Real time in ns, from when the vCPUs start. */
  readonly realNsMax?: number;
  /** Under KVM, vCPUs that used no CPU time for so many ns count as waiting; QEMU's choice unless given. */
  readonly idleNs?: number;
}

/** How a round ended. */
export interface Stopped {
  readonly virtualNs: number;
  /** First byte of the deliver ring that the guest has not taken. */
  readonly deliverTail: number;
  readonly holdHead: number;
  /** One of `stopReason`. */
  readonly reason: number;
  /** Every vCPU is halted. */
  readonly idle: boolean;
}

/** Device state in the port's area. */
export interface SavedState {
  readonly bytes: number;
  /** CRC-32C. */
  readonly checksum: number;
}

export class GuestPort {
  readonly socketFd: number;
  /** eventfd: frames lie in the ingress ring. */
  readonly doorbellFd: number;
  readonly qemuPid: number;
  readonly blocks: readonly GuestBlock[];
  readonly ingress: RingConsumer;
  readonly deliver: RingProducer;
  /** Dirty bitmap of the last `collect`, one bit a page, all blocks in a row. */
  readonly dirtyBitmap: Uint32Array;
  /** The pages that the agent has written, for `invalidate`: as `dirtyBitmap`. */
  readonly applyBitmap: Uint32Array;
  /** Device state, as `save` left it or `load` will find it. */
  readonly deviceState: Uint8Array;
  readonly #area: ArrayBuffer;
  readonly #leaseEndNs: BigUint64Array;
  readonly #ingressQuiet: Uint32Array;
  readonly #message = new Uint8Array(layout.messageBytes);
  readonly #view = new DataView(this.#message.buffer);
  #sequence = 0;
  #runSequence = 0;
  #collections = 0;
  #stopped: Stopped | undefined;
  #released = 0;
  #saveSequence = 0;
  #saved: SavedState | undefined;

  /** Takes the greeting that waits on an accepted connection. */
  constructor(socketFd: number) {
    this.socketFd = socketFd;
    const fds = this.#greeting();
    const [areaFd, doorbellFd, ...blockFds] = fds;
    if (areaFd === undefined || doorbellFd === undefined) throw new PortLostError('passed no memory');
    this.doorbellFd = doorbellFd;
    this.qemuPid = this.#argument(2);
    const area = this.#mapArea(areaFd, blockFds);
    this.#area = area;
    const view = new DataView(area);
    this.blocks = blockFds.map((fd, index) => mapBlock(view, fd, index));
    const [data, words, head, , tail] = ringParts(area, layout.ringIndex.ingress);
    this.ingress = new IngressRing(data, words, head, words, tail);
    this.#ingressQuiet = words.subarray(layout.ringOffset.quiet / 4, layout.ringOffset.quiet / 4 + 1);
    this.ingressQuiet = false;
    this.deliver = deliverRing(area);
    const bitmapBytes = readUint64(view, layout.areaOffset.bitmapBytes);
    this.dirtyBitmap = new Uint32Array(
      area,
      readUint64(view, layout.areaOffset.bitmapOffset),
      bitmapBytes / 4,
    );
    this.applyBitmap = new Uint32Array(
      area,
      readUint64(view, layout.areaOffset.applyOffset),
      bitmapBytes / 4,
    );
    this.#leaseEndNs = new BigUint64Array(area, layout.areaOffset.leaseEndNs, 1);
    this.deviceState = new Uint8Array(
      area,
      readUint64(view, layout.areaOffset.stateOffset),
      readUint64(view, layout.areaOffset.stateBytes),
    );
  }

  /** Refuses what is no area of this layout, with all its descriptors closed. */
  #mapArea(areaFd: number, blockFds: readonly number[]): ArrayBuffer {
    const told = this.#argument(0);
    const present = fstatSync(areaFd).size;
    const area = native().memoryMap(areaFd, 0, Math.min(told, present), true);
    closeSync(areaFd);
    const why =
      area.byteLength < layout.blockTableOffset + layout.blocksMax * layout.blockBytes
        ? `passed an area of ${area.byteLength} bytes`
        : whyNoArea(
            new DataView(area),
            { told, present },
            blockFds.map((fd) => fstatSync(fd).size),
          );
    if (why === undefined) return area;
    for (const fd of [this.doorbellFd, ...blockFds]) closeSync(fd);
    native().memoryUnmap(area);
    throw new PortLostError(why);
  }

  #greeting(): readonly number[] {
    const fds = Int32Array.of(this.socketFd);
    if (native().waitReadable(fds, new Uint8Array(1), answerTimeoutUs) === 0)
      throw new PortLostError('connected but said nothing for 10 s');
    const received = native().portReceive(this.socketFd, this.#message);
    if (received?.bytes !== layout.messageBytes) throw new PortLostError('hung up before its greeting');
    if (this.#view.getUint32(layout.messageOffset.type, true) !== layout.messageType.hello)
      throw new PortLostError('did not greet');
    return received.fds;
  }

  /** Claims the guest; from now on dirty pages are tracked. */
  welcome(): void {
    this.#call(layout.messageType.welcome, layout.version);
  }

  /** Starts a round that ends at a virtual instant; `takeStopped` tells of its end. */
  run(untilVirtualNs: number, deliverHead: number, round: number, release: boolean): void {
    this.runLimited({ untilVirtualNs }, deliverHead, round, release);
  }

  /**
   * Starts a round; `takeStopped` tells of its end. `release`: output leaves as the guest sends it. Refused after
   * a guest has powered itself off or reset itself, until `reset`.
   */
  runLimited(limits: RoundLimits, deliverHead: number, round: number, release: boolean): void {
    this.#stopped = undefined;
    this.#runSequence = this.#send(
      layout.messageType.run,
      limits.untilVirtualNs ?? 0,
      deliverHead,
      round,
      (release ? layout.runRelease : 0) | (limits.untilIdle === true ? layout.runUntilIdle : 0),
      limits.realNsMax ?? 0,
      limits.idleNs ?? 0,
    );
  }

  /**
   * Gives the running round the inputs up to `deliverHead` at once, at no instant that another guest could repeat.
   * Returns the first byte that the guest has not taken.
   */
  deliverLive(deliverHead: number): number {
    this.#call(layout.messageType.deliver, deliverHead);
    return this.#argument(0);
  }

  /** Once per round: how it ended; undefined while it runs. Throws when QEMU refused the round. */
  takeStopped(): Stopped | undefined {
    this.#poll();
    const stopped = this.#stopped;
    this.#stopped = undefined;
    return stopped;
  }

  /** Ends the running round now; no device is told. A guest that stands stays as it is. */
  stop(): Stopped {
    this.#call(layout.messageType.stop);
    return this.#readStopped();
  }

  /** Stops so that devices know of it, as before state is moved. */
  pause(): Stopped {
    this.#call(layout.messageType.pause);
    return this.#readStopped();
  }

  /** How often the dirty bitmap was collected: whoever keeps track of it knows whether somebody else did. */
  get collections(): number {
    return this.#collections;
  }

  /**
   * Dirty bitmap into `dirtyBitmap`; returns how many pages. From now on until the next round nothing but the agent
   * changes guest memory, and QEMU serves nobody but the agent.
   */
  collect(): number {
    this.#collections++;
    this.#call(layout.messageType.collect);
    return this.#argument(0);
  }

  /** Device state into `deviceState`; returns its length and checksum. */
  save(): SavedState {
    this.beginSave();
    return this.saved();
  }

  /** As `save`, while the caller does something else until `saved`. */
  beginSave(): void {
    this.#saved = undefined;
    this.#saveSequence = this.#send(layout.messageType.save);
  }

  saved(): SavedState {
    while (this.#saved === undefined) this.#awaitAnswer(layout.messageType.save);
    return this.#saved;
  }

  /** `keepCode`: translated code stays, and the caller names every page that it wrote with `invalidate`. */
  load(bytes: number, checksum: number, keepCode = false): void {
    this.#call(layout.messageType.load, bytes, checksum, keepCode ? layout.loadKeepCode : 0);
  }

  /** Drops translated code of the pages in `applyBitmap`; returns how many pages. The bitmap stays as it is. */
  invalidate(): number {
    this.#call(layout.messageType.invalidate);
    return this.#argument(0);
  }

  /** Resets the standing machine. */
  reset(): void {
    this.#call(layout.messageType.reset);
  }

  /** From this instant of CLOCK_MONOTONIC on no output leaves, whatever was asked before; undefined: no end. */
  setLease(endNs: bigint | undefined): void {
    Atomics.store(this.#leaseEndNs, 0, endNs ?? 2n ** 64n - 1n);
  }

  /** Held frames up to this position go to the tap; returns the position reached. */
  release(holdHead: number): number {
    this.#call(layout.messageType.release, holdHead);
    this.#released = this.#argument(1);
    return this.#argument(0);
  }

  /** Frames that the last `release` let out. */
  get releasedFrames(): number {
    return this.#released;
  }

  /** Held frames up to this position are forgotten. */
  drop(holdHead: number): void {
    this.#call(layout.messageType.drop, holdHead);
  }

  /** Whether frames from the tap come into the ingress ring or are discarded. */
  divertIngress(divert: boolean): void {
    this.#call(layout.messageType.ingress, divert ? 1 : 0);
  }

  /**
   * Quiet: what comes into the ingress ring rings no doorbell, and while a round runs, it stays with the host until
   * that has ended. Whoever ends the quiet looks into the ring afterwards.
   */
  set ingressQuiet(quiet: boolean) {
    Atomics.store(this.#ingressQuiet, 0, quiet ? 1 : 0);
  }

  /**
   * A reader of its own of what the guest sends from now on, frames and serial line, whatever becomes of it: QEMU alone
   * moves the ring's tail. A reader that falls behind by the whole ring reads what makes no sense. `position`: where
   * an earlier reader was, and this one will be.
   */
  readHeld(position?: Uint32Array): RingConsumer {
    const [data, words, head] = ringParts(this.#area, layout.ringIndex.hold);
    return new RingConsumer(data, words, head, position ?? Uint32Array.of(Atomics.load(words, head)), 0);
  }

  /** Asks QEMU to end. Never throws. */
  quit(): void {
    try {
      this.#send(layout.messageType.quit);
    } catch {
      // It has ended already.
    }
  }

  /** Gives the guest's memory back; nothing of the port may be used any more. */
  close(): void {
    closeSync(this.socketFd);
    closeSync(this.doorbellFd);
    for (const { memory } of this.blocks) native().memoryUnmap(memory);
    native().memoryUnmap(this.#area);
  }

  #send(type: number, ...values: number[]): number {
    this.#message.fill(0);
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#view.setUint32(layout.messageOffset.magic, layout.magic, true);
    this.#view.setUint32(layout.messageOffset.type, type, true);
    this.#view.setUint32(layout.messageOffset.sequence, this.#sequence, true);
    values.forEach((value, index) => {
      writeUint64(this.#view, layout.messageOffset.a + 8 * index, value);
    });
    try {
      native().portSend(this.socketFd, this.#message);
    } catch (error) {
      throw new PortLostError(`takes no requests: ${(error as Error).message}`);
    }
    return this.#sequence;
  }

  /** Sends a request and waits for its answer: for those that QEMU answers at once. */
  #call(type: number, ...values: number[]): void {
    const sequence = this.#send(type, ...values);
    while (this.#awaitAnswer(type) !== sequence);
  }

  /** The sequence number of the answer that came. */
  #awaitAnswer(type: number): number | undefined {
    const fds = Int32Array.of(this.socketFd);
    if (native().waitReadable(fds, new Uint8Array(1), answerTimeoutUs) === 0)
      throw new PortLostError(`did not answer request ${type} within 10 s`);
    return this.#receive();
  }

  #poll(): void {
    while (this.#receive() !== undefined);
  }

  /** The sequence number of one answer read, or undefined when none waits. */
  #receive(): number | undefined {
    const received = native().portReceive(this.socketFd, this.#message);
    if (received === null) return undefined;
    if (received.bytes !== layout.messageBytes) throw new PortLostError('hung up');
    const sequence = this.#view.getUint32(layout.messageOffset.sequence, true);
    if (this.#view.getUint32(layout.messageOffset.status, true) !== layout.status.ok)
      throw new PortRefusedError(this.#text());
    if (sequence === this.#runSequence) {
      this.#runSequence = 0;
      this.#stopped = this.#readStopped();
    }
    if (sequence === this.#saveSequence) {
      this.#saveSequence = 0;
      this.#saved = { bytes: this.#argument(0), checksum: this.#argument(1) };
    }
    return sequence;
  }

  #readStopped(): Stopped {
    return {
      virtualNs: this.#argument(0),
      deliverTail: this.#argument(1),
      holdHead: this.#argument(2),
      reason: this.#argument(3),
      idle: this.#argument(4) === 1,
    };
  }

  #argument(index: number): number {
    return readUint64(this.#view, layout.messageOffset.a + 8 * index);
  }

  #text(): string {
    const text = this.#message.subarray(layout.messageOffset.text);
    const end = text.indexOf(0);
    return new TextDecoder().decode(text.subarray(0, end === -1 ? text.length : end));
  }
}

function mapBlock(area: DataView, fd: number, index: number): GuestBlock {
  const at = layout.blockTableOffset + layout.blockBytes * index;
  const name = new Uint8Array(area.buffer, at + layout.blockOffset.name, layout.blockNameBytes);
  const end = name.indexOf(0);
  const bytes = readUint64(area, at + layout.blockOffset.bytesMax);
  try {
    return {
      name: new TextDecoder().decode(name.subarray(0, end === -1 ? name.length : end)),
      memory: native().memoryMap(fd, readUint64(area, at + layout.blockOffset.fdOffset), bytes, true),
      bytes,
      pageCount: bytes / layout.pageBytes,
      bitmapBit: readUint64(area, at + layout.blockOffset.bitmapBit),
    };
  } finally {
    closeSync(fd);
  }
}

function ringParts(area: ArrayBuffer, index: number): [Uint8Array, Uint32Array, number, Uint32Array, number] {
  const view = new DataView(area);
  const at = readUint64(view, layout.areaOffset.ringOffset + 8 * index);
  const capacity = view.getUint32(at + layout.ringOffset.capacity, true);
  const words = new Uint32Array(area, at, layout.ringHeaderBytes / 4);
  const data = new Uint8Array(area, at + layout.ringHeaderBytes, capacity);
  return [data, words, layout.ringOffset.head / 4, words, layout.ringOffset.tail / 4];
}

function deliverRing(area: ArrayBuffer): RingProducer {
  const [data, words, head, , tail] = ringParts(area, layout.ringIndex.deliver);
  return new RingProducer(
    data,
    words,
    head,
    () => Atomics.load(words, tail),
    (position) => Atomics.store(words, tail, position),
  );
}
