/**
 * The guest behind QEMU's port as a round's exchange sees it. Guarantees: a round's end has drained the devices,
 * and from collecting on nothing but the agent writes guest memory until the next round; a state is loaded only if it is whole and of this layout.
 *
 * A saved state, little-endian: what both guests must have in common beside their pages.
 *
 *    0 u32 bytes of device state      4 u32 its CRC-32C
 *    8 u64 virtual time, ns          16 u32 tail of the deliver ring     20 u32 its head
 *   24 device state, then what lies between tail and head: frames for which the guest had no buffer yet
 */
import { setBit, uniteInto } from '../../merkle/bitmap.ts';
import type { PageHasher } from '../../merkle/page-hasher.ts';
import type { PageSpace } from '../../merkle/page-space.ts';
import { readUint64, writeUint64 } from '../core/falcon/record.ts';
import type { ExchangeGuest } from '../core/rounds/exchange-guest.ts';
import { ExchangeRefusal } from '../core/rounds/exchange-refusal.ts';
import { PageHasher as PortPageHasher, pageSpaceOf } from '../io/page-hasher.ts';
import { PortLostError, PortRefusedError } from '../io/qemu/port.ts';
import type { GuestExecutor } from './guest-executor.ts';

const headerBytes = 24;

export class PortExchangeGuest implements ExchangeGuest {
  readonly bitmapWords: number;
  readonly space: PageSpace;
  readonly hasher: PageHasher;
  readonly #executor: GuestExecutor;
  #state = new Uint8Array(0);

  constructor(executor: GuestExecutor) {
    const { port } = executor;
    this.#executor = executor;
    this.bitmapWords = port.dirtyBitmap.length;
    this.space = pageSpaceOf(port.blocks, this.bitmapWords);
    this.hasher = new PortPageHasher(port.blocks);
  }

  fillAll(words: Uint32Array): void {
    for (const { bitmapBit, pageCount } of this.#executor.port.blocks)
      for (let page = bitmapBit; page < bitmapBit + pageCount; page++) setBit(words, page);
  }

  collectInto(words: Uint32Array): void {
    const { port } = this.#executor;
    port.collect();
    uniteInto(words, port.dirtyBitmap);
  }

  beginSave(): void {
    this.#executor.port.beginSave();
  }

  saveState(): Uint8Array {
    const { port, virtualNs, deliverTail } = this.#executor;
    const { bytes, checksum } = port.saved();
    const { head, data } = port.deliver;
    const frames = (head - deliverTail) >>> 0;
    const all = headerBytes + bytes + frames;
    if (this.#state.length < all) this.#state = new Uint8Array(2 * all);
    const state = this.#state.subarray(0, all);
    const view = new DataView(state.buffer, state.byteOffset, all);
    view.setUint32(0, bytes, true);
    view.setUint32(4, checksum, true);
    writeUint64(view, 8, virtualNs);
    view.setUint32(16, deliverTail, true);
    view.setUint32(20, head, true);
    state.set(port.deviceState.subarray(0, bytes), headerBytes);
    for (let at = 0; at < frames; at++)
      state[headerBytes + bytes + at] = data[(deliverTail + at) & (data.length - 1)] ?? 0;
    return state;
  }

  checkState(state: Uint8Array): void {
    const { deviceState, deliver } = this.#executor.port;
    const view = new DataView(state.buffer, state.byteOffset, state.length);
    const bytes = state.length < headerBytes ? 0 : view.getUint32(0, true);
    const frames =
      state.length < headerBytes ? 0 : (view.getUint32(20, true) - view.getUint32(16, true)) >>> 0;
    const fits = bytes > 0 && bytes <= deviceState.length && frames <= deliver.data.length;
    if (!fits || state.length !== headerBytes + bytes + frames)
      throw new ExchangeRefusal(
        `A state of ${state.length} bytes, of which ${bytes} of devices and ${frames} of frames, cannot be loaded here`,
      );
  }

  loadState(state: Uint8Array): void {
    const { port } = this.#executor;
    const view = new DataView(state.buffer, state.byteOffset, state.length);
    const bytes = view.getUint32(0, true);
    const [tail, head] = [view.getUint32(16, true), view.getUint32(20, true)];
    port.deviceState.set(state.subarray(headerBytes, headerBytes + bytes));
    const frames = state.subarray(headerBytes + bytes);
    const { data } = port.deliver;
    for (let at = 0; at < frames.length; at++) data[(tail + at) & (data.length - 1)] = frames[at] ?? 0;
    port.deliver.moveTo(tail, head);
    try {
      port.load(bytes, view.getUint32(4, true), true);
    } catch (error) {
      if (!(error instanceof PortRefusedError)) throw error;
      // Its pages are the leader's already, its devices are not: nobody can go on with such a guest.
      throw new PortLostError(`could not take the leader's device state: ${error.message}`);
    }
    this.#executor.deviceStateLoaded(readUint64(view, 8), tail);
  }

  invalidate(pages: Uint32Array, count: number): void {
    if (count === 0) return;
    const { port } = this.#executor;
    port.applyBitmap.fill(0);
    for (let at = 0; at < count; at++) setBit(port.applyBitmap, pages[at] ?? 0);
    port.invalidate();
  }
}
