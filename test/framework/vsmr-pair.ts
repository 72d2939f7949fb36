/**
 * Two guests that run freely on the same frames and are made equal at the end of each round, by the shortest road
 * that is right: both address spaces are mapped here, so that pages are compared and copied directly. It is the
 * oracle for the port and for everything that does the same with hashes and messages.
 */
import { countBits, listBits, setBit, uniteInto } from '../../merkle/bitmap.ts';
import { pageBytes } from '../../vmm/io/qemu/layout.ts';
import type { GuestBlock, Stopped } from '../../vmm/io/qemu/port.ts';
import { cloneGuest } from './clone-guest.ts';
import type { PortGuest } from './port-guest.ts';

export interface VsmrRound {
  readonly frames: number;
  readonly stopped: readonly [Stopped, Stopped];
  /** Frames that each sent in it; only the leader's leave. */
  readonly sent: readonly [number, number];
  /** Pages: those of both dirty bitmaps, and those of them that differed. */
  readonly dirty: readonly [number, number];
  readonly union: number;
  readonly divergent: number;
  /** Pages that loading the leader's device state dirtied at the backup, and those of them that it changed. */
  readonly loadDirtied: number;
  readonly loadChanged: number;
  readonly stateBytes: number;
}

export class VsmrPair {
  readonly leader: PortGuest;
  readonly backup: PortGuest;
  readonly #union: Uint32Array;
  readonly #pages: Uint32Array;
  /** Pages that were written from here, which no QEMU knows of, and that no round has compared since. */
  readonly #written: Uint32Array;

  private constructor(leader: PortGuest, backup: PortGuest) {
    this.leader = leader;
    this.backup = backup;
    const words = leader.port.dirtyBitmap.length;
    this.#union = new Uint32Array(words);
    this.#written = new Uint32Array(words);
    this.#pages = new Uint32Array(words * 32);
  }

  /** Gives the standing `leader`'s whole state to `backup`, a fresh guest of the same machine. */
  static clone(leader: PortGuest, backup: PortGuest): VsmrPair {
    cloneGuest(leader, backup);
    return new VsmrPair(leader, backup);
  }

  get guests(): readonly [PortGuest, PortGuest] {
    return [this.leader, this.backup];
  }

  /** The test has written this page of one of them, by its bit in the bitmaps. */
  wrote(bit: number): void {
    setBit(this.#written, bit);
  }

  /**
   * One round on both, at the same time, until each has gone quiet or `nsMax` of real time are over, and both equal
   * again at its end. Unless given, the frames are what came from the leader's tap. The leader's output leaves when they are equal, the backup's is dropped.
   */
  round(nsMax: number, frames: readonly Uint8Array[] = this.leader.takeIngress()): VsmrRound {
    const { leader, backup } = this;
    const stopped = this.#run(nsMax, frames);
    const dirty = [leader.port.collect(), backup.port.collect()] as const;
    this.#union.set(leader.port.dirtyBitmap);
    uniteInto(this.#union, backup.port.dirtyBitmap);
    uniteInto(this.#union, this.#written);
    this.#written.fill(0);
    backup.port.applyBitmap.fill(0);
    const divergent = this.#copyDivergent(this.#union);
    const stateBytes = this.#moveDeviceState();
    const loadDirtied = backup.port.collect();
    const loadChanged = this.#copyDivergent(backup.port.dirtyBitmap);
    backup.port.invalidate();
    backup.port.deliver.moveTo(leader.deliverTail, leader.port.deliver.head);
    const sent = [leader.takeOutput().length, backup.takeOutput().length] as const;
    leader.port.release(leader.held.head);
    backup.port.drop(backup.held.head);
    const union = countBits(this.#union);
    const pages = { dirty, union, divergent, loadDirtied, loadChanged };
    return { frames: frames.length, stopped, sent, stateBytes, ...pages };
  }

  #run(nsMax: number, frames: readonly Uint8Array[]): readonly [Stopped, Stopped] {
    for (const guest of this.guests) guest.beginWithin({ untilIdle: true, realNsMax: nsMax }, frames);
    return [this.leader.awaitStopped(), this.backup.awaitStopped()];
  }

  /** The leader's page to the backup wherever one of `bitmap` differs. Returns how many. */
  #copyDivergent(bitmap: Uint32Array): number {
    const count = listBits(bitmap, this.#pages);
    let divergent = 0;
    let block = -1;
    for (let at = 0; at < count; at++) {
      const bit = this.#pages[at] ?? 0;
      // Pages ascend, and so do blocks.
      while (!holds(this.leader.port.blocks[block], bit)) block++;
      const [from, to] = [this.leader.port.blocks[block], this.backup.port.blocks[block]];
      if (from === undefined || to?.bitmapBit !== from.bitmapBit)
        throw new Error(`Page ${bit} of the leader is no page of the backup`);
      const page = bit - from.bitmapBit;
      const [source, target] = [pageOf(from, page), pageOf(to, page)];
      if (source.equals(target)) continue;
      target.set(source);
      setBit(this.backup.port.applyBitmap, bit);
      divergent++;
    }
    return divergent;
  }

  #moveDeviceState(): number {
    const { leader, backup } = this;
    const { bytes, checksum } = leader.port.save();
    backup.port.deviceState.set(leader.port.deviceState.subarray(0, bytes));
    backup.port.load(bytes, checksum, true);
    backup.stateLoaded(leader.virtualNs);
    return bytes;
  }
}

function holds(block: GuestBlock | undefined, bit: number): boolean {
  return block !== undefined && bit >= block.bitmapBit && bit < block.bitmapBit + block.pageCount;
}

function pageOf(block: GuestBlock, page: number): Buffer {
  return Buffer.from(block.memory, page * pageBytes, pageBytes);
}
