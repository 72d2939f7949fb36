/**
 * What travels from the leader into the backup's staging: the divergent pages in ascending order, then the state
 * that is in no page. Guarantee: `read` takes a staging only if all of it makes sense for this union, before a byte
 * of it is applied.
 *
 *   item: u32 form, u32 page, u32 bytes, then the bytes
 */
import { hasBit } from '../../../merkle/bitmap.ts';
import { grown } from '../../../merkle/grow.ts';
import type { ExchangeGuest } from './exchange-guest.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import type { PartSource } from './part-sender.ts';
import type { StateBase } from './state-delta.ts';

const ITEM_BYTES = 12;
const form = { wholePage: 1, zeroPage: 2, state: 3, stateDelta: 4 } as const;

/** The leader's side: makes the stream while it is sent. The guest must stand until all of it has gone. */
export class StagingSource implements PartSource {
  readonly #guest: ExchangeGuest;
  readonly #base: StateBase;
  readonly #item: Uint8Array;
  #stateForm: number = form.state;
  #pages = new Uint32Array(0);
  #count = 0;
  #state = new Uint8Array(0);
  #next = 0;
  /** Of the item at hand: what of it is not yet in the stream. */
  #rest: Uint8Array = new Uint8Array(0);
  /** Of the stream as made so far. */
  bytes = 0;
  zeroPages = 0;

  constructor(guest: ExchangeGuest, base: StateBase) {
    this.#guest = guest;
    this.#base = base;
    this.#item = new Uint8Array(ITEM_BYTES + guest.pageBytes);
  }

  /** `wholeState`: the other side has asked for it. */
  begin(pages: Uint32Array, count: number, state: Uint8Array, wholeState: boolean): void {
    const delta = wholeState ? undefined : this.#base.deltaOf(state);
    this.#stateForm = delta === undefined ? form.state : form.stateDelta;
    this.#pages = pages as Uint32Array<ArrayBuffer>;
    this.#count = count;
    this.#state = (delta ?? state) as Uint8Array<ArrayBuffer>;
    this.rewind();
  }

  rewind(): void {
    this.#next = 0;
    this.#rest = new Uint8Array(0);
    this.bytes = 0;
    this.zeroPages = 0;
  }

  fill(out: Uint8Array): number {
    let at = 0;
    while (at < out.length) {
      if (this.#rest.length === 0 && !this.#makeItem()) break;
      const part = this.#rest.subarray(0, out.length - at);
      out.set(part, at);
      at += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    this.bytes += at;
    return at;
  }

  #makeItem(): boolean {
    const number = this.#next++;
    if (number < this.#count) this.#rest = this.#pageItem(this.#pages[number] ?? 0);
    else if (number === this.#count)
      this.#rest = heading(new Uint8Array(ITEM_BYTES), this.#stateForm, 0, this.#state.length);
    else if (number === this.#count + 1) this.#rest = this.#state;
    else return false;
    return true;
  }

  #pageItem(page: number): Uint8Array {
    const { pageBytes } = this.#guest;
    const item = this.#item;
    this.#guest.readPage(page, item, ITEM_BYTES);
    if (isZero(item, ITEM_BYTES)) {
      this.zeroPages++;
      return heading(item.subarray(0, ITEM_BYTES), form.zeroPage, page, 0);
    }
    return heading(item, form.wholePage, page, pageBytes);
  }
}

function heading(item: Uint8Array, itemForm: number, page: number, bytes: number): Uint8Array {
  const view = new DataView(item.buffer, item.byteOffset, ITEM_BYTES);
  view.setUint32(0, itemForm, true);
  view.setUint32(4, page, true);
  view.setUint32(8, bytes, true);
  return item;
}

function isZero(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at < bytes.length; at++) if (bytes[at] !== 0) return false;
  return true;
}

/** The backup's side: a staging that is complete and makes sense, until it is applied. */
export class Staging {
  readonly #guest: ExchangeGuest;
  readonly #base: StateBase;
  readonly #zeros: Uint8Array;
  #bytes: Uint8Array = new Uint8Array(0);
  /** Invariant: page i's content lies at `#offsets[i]`, or is zeros where that is 0. */
  #offsets = new Uint32Array(0);
  #state: Uint8Array = new Uint8Array(0);
  pages = new Uint32Array(0);
  pageCount = 0;

  constructor(guest: ExchangeGuest, base: StateBase) {
    this.#guest = guest;
    this.#base = base;
    this.#zeros = new Uint8Array(guest.pageBytes);
  }

  /**
   * False: the state is a delta whose base is not here. Throws `ExchangeRefusal` on what no leader that knows this
   * union would stage.
   */
  read(bytes: Uint8Array, union: Uint32Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#bytes = bytes;
    this.pageCount = 0;
    let at = 0;
    while (at + ITEM_BYTES <= bytes.length) {
      const itemForm = view.getUint32(at, true);
      const length = view.getUint32(at + 8, true);
      at += ITEM_BYTES;
      if (length > bytes.length - at) break;
      if (itemForm === form.state || itemForm === form.stateDelta) {
        if (at + length !== bytes.length) break;
        return this.#takeState(bytes.subarray(at), itemForm);
      }
      this.#takePage(view.getUint32(at - 8, true), itemForm, at, length, union);
      at += length;
    }
    throw new ExchangeRefusal(`The staging of ${bytes.length} bytes makes no sense at byte ${at}`);
  }

  #takeState(bytes: Uint8Array, itemForm: number): boolean {
    const state = itemForm === form.state ? bytes : this.#base.apply(bytes);
    if (state === undefined) return false;
    this.#guest.checkState(state);
    this.#state = state;
    return true;
  }

  #takePage(page: number, itemForm: number, at: number, length: number, union: Uint32Array): void {
    const zero = itemForm === form.zeroPage;
    if ((!zero && itemForm !== form.wholePage) || length !== (zero ? 0 : this.#guest.pageBytes))
      throw new ExchangeRefusal(`Page ${page} was staged in form ${itemForm} with ${length} bytes`);
    const before = this.pageCount === 0 ? -1 : (this.pages[this.pageCount - 1] ?? 0);
    if (page <= before || page >= union.length * 32 || !hasBit(union, page))
      throw new ExchangeRefusal(`Page ${page} was staged behind page ${before}, and is not in the union`);
    if (this.pages.length === this.pageCount) this.#grow();
    this.pages[this.pageCount] = page;
    this.#offsets[this.pageCount++] = zero ? 0 : at;
  }

  #grow(): void {
    const size = grown(this.pages.length, this.pageCount + 64);
    const pages = new Uint32Array(size);
    const offsets = new Uint32Array(size);
    pages.set(this.pages);
    offsets.set(this.#offsets);
    this.pages = pages;
    this.#offsets = offsets;
  }

  /** Irrevocable, and may be done again from its beginning. */
  apply(): void {
    const guest = this.#guest;
    for (let position = 0; position < this.pageCount; position++) {
      const offset = this.#offsets[position] ?? 0;
      const page = this.pages[position] ?? 0;
      if (offset === 0) guest.writePage(page, this.#zeros, 0);
      else guest.writePage(page, this.#bytes, offset);
    }
    guest.invalidate(this.pages, this.pageCount);
    guest.loadState(this.#state);
  }

  /** This guest was proven equal: both sides have this state. */
  keepState(): void {
    this.#base.keep(this.#state);
  }
}
