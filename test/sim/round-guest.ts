/**
 * A simulated guest: a few small pages, some bytes of devices, a dirty bitmap that its QEMU keeps, output that is
 * held. Two of them given the same inputs write mostly the same pages with mostly the same contents. It outlives
 * the agent that runs it, and so does the memory of its unreconciled set.
 */
import { bitmapWords, setBit, uniteInto } from '../../merkle/bitmap.ts';
import type { PageHasher } from '../../merkle/page-hasher.ts';
import { PageSpace, type PageRegion } from '../../merkle/page-space.ts';
import type { ExchangeGuest } from '../../vmm/core/rounds/exchange-guest.ts';
import { ExchangeRefusal } from '../../vmm/core/rounds/exchange-refusal.ts';
import { UnreconciledSet } from '../../vmm/core/rounds/unreconciled-set.ts';
import { digestOf, hasherOf } from './round-hash.ts';

export const PAGE_BYTES = 64;
const DEVICE_BYTES = 240;

/** What left the guest in one round: a client that sees it has seen this history. */
export interface Frame {
  readonly index: number;
  /** Names the guest's whole state at the end of that round, and so all that led to it. */
  readonly moment: number;
}

/** Chance, from 0 to below 1, of whoever runs the guest. */
export type Chance = () => number;

/** All that led to a guest's present state, newest first. Shared by guests that were made equal. */
export interface Moment extends Frame {
  readonly before: Moment | undefined;
}

/** Whether the frame left in this past. */
export function happened(past: Moment | undefined, frame: Frame): boolean {
  let moment = past;
  while (moment !== undefined && moment.index > frame.index) moment = moment.before;
  return moment?.index === frame.index && moment.moment === frame.moment;
}

/** What each saved state had come by: known to the checkers alone, it travels beside the protocol. */
export type MomentRegistry = (Moment | undefined)[];

export class RoundGuest implements ExchangeGuest {
  readonly pageCount: number;
  readonly bitmapWords: number;
  readonly space: PageSpace;
  readonly hasher: PageHasher;
  readonly memory: Uint8Array;
  readonly devices = new Uint8Array(DEVICE_BYTES);
  /** Pages written and not collected. */
  readonly dirty: Uint32Array;
  /** What the last `collect` put into the area that QEMU shares with its agent. */
  readonly area: Uint32Array;
  readonly setMemory: Uint32Array;
  past: Moment | undefined;
  held: Frame[] = [];
  /** Called before each store that an exchange makes: the agent may die there. */
  beforeStore: () => void = () => undefined;
  /** Pages that loading a state writes by itself. */
  loadWrites: readonly number[] = [];
  readonly #registry: MomentRegistry;

  constructor(pageCount: number, registry: MomentRegistry) {
    this.pageCount = pageCount;
    this.#registry = registry;
    this.bitmapWords = bitmapWords(pageCount);
    this.memory = new Uint8Array(pageCount * PAGE_BYTES);
    this.space = new StoredPages(this);
    this.hasher = hasherOf(this.memory, PAGE_BYTES);
    this.dirty = new Uint32Array(this.bitmapWords);
    this.area = new Uint32Array(this.bitmapWords);
    this.setMemory = new Uint32Array(UnreconciledSet.wordsFor(this.bitmapWords));
  }

  /** What a new agent finds: what was collected and perhaps never united is in the area still. */
  claimSet(): UnreconciledSet {
    const set = new UnreconciledSet(this.setMemory, this.bitmapWords);
    uniteInto(set.since, this.area);
    return set;
  }

  // Executing ----------------------------------------------------------------------------------------

  /**
   * Runs one round: what its inputs do is the same everywhere, up to how threads happened to be scheduled, which
   * is `chance`. Under `exact` nothing is left to chance.
   */
  run(index: number, input: Uint8Array, chance: Chance, exact: boolean): void {
    for (let at = 0; at < input.length; at++) {
      const page = (Math.imul((input[at] ?? 0) + at * 31 + index, 0x9e3779b1) >>> 8) % this.pageCount;
      this.#write(page, at % PAGE_BYTES, (input[at] ?? 0) + (this.memory[page * PAGE_BYTES] ?? 0));
    }
    for (let turn = 0; turn < 3; turn++) {
      if (exact || chance() < 0.4) continue;
      const page = Math.floor(chance() * this.pageCount);
      this.#write(page, Math.floor(chance() * PAGE_BYTES), Math.floor(chance() * 256));
    }
    const device = index % DEVICE_BYTES;
    this.devices[device] = (this.devices[device] ?? 0) + 1 + (exact ? 0 : Math.floor(chance() * 3));
    const moment = digestOf(this.memory, this.devices, Uint8Array.of(index & 255, (index >> 8) & 255));
    this.past = { index, moment, before: this.past };
    this.held.push({ index, moment });
  }

  #write(page: number, at: number, value: number): void {
    this.memory[page * PAGE_BYTES + at] = value & 255;
    setBit(this.dirty, page);
  }

  /** The frame left in this guest's past. */
  happened(frame: Frame): boolean {
    return happened(this.past, frame);
  }

  // What an exchange asks for --------------------------------------------------------------------------

  fillAll(words: Uint32Array): void {
    for (let page = 0; page < this.pageCount; page++) setBit(words, page);
  }

  collectInto(words: Uint32Array): void {
    this.beforeStore();
    this.area.set(this.dirty);
    this.dirty.fill(0);
    this.beforeStore();
    uniteInto(words, this.area);
  }

  beginSave(): void {
    this.beforeStore();
  }

  saveState(): Uint8Array {
    const state = new Uint8Array(DEVICE_BYTES + 4);
    state.set(this.devices);
    new DataView(state.buffer).setUint32(DEVICE_BYTES, this.#registry.push(this.past) - 1, true);
    return state;
  }

  checkState(state: Uint8Array): void {
    if (state.length !== DEVICE_BYTES + 4) throw new ExchangeRefusal(`A state of ${state.length} bytes`);
  }

  loadState(state: Uint8Array): void {
    this.beforeStore();
    this.devices.set(state.subarray(0, DEVICE_BYTES));
    for (const page of this.loadWrites) this.#write(page, 0, this.memory[page * PAGE_BYTES] ?? 0);
    const number = new DataView(state.buffer, state.byteOffset).getUint32(DEVICE_BYTES, true);
    this.past = this.#registry[number];
    this.held = [];
  }

  invalidate(): void {
    this.beforeStore();
  }

  /** Pages in which two guests differ. */
  differingPages(other: RoundGuest): number[] {
    const pages: number[] = [];
    for (let page = 0; page < this.pageCount; page++) {
      const at = page * PAGE_BYTES;
      for (let byte = at; byte < at + PAGE_BYTES; byte++) {
        if (this.memory[byte] === other.memory[byte]) continue;
        pages.push(page);
        break;
      }
    }
    return pages;
  }
}

/**
 * Before some of the pages that an exchange looks up, to read or to write them, the agent may die. Not before each: there
 * are many, and it would hardly ever come to die elsewhere.
 */
class StoredPages extends PageSpace {
  readonly #guest: RoundGuest;
  #lookups = 0;

  constructor(guest: RoundGuest) {
    const { pageCount, memory, bitmapWords: words } = guest;
    super([{ firstPage: 0, pageCount, words: new Uint32Array(memory.buffer) }], words, PAGE_BYTES);
    this.#guest = guest;
  }

  override regionOf(page: number): PageRegion {
    if (this.#lookups++ % 4 === 0) this.#guest.beforeStore();
    return super.regionOf(page);
  }
}
