/**
 * What travels from the leader into the backup's staging: merkle's stagings in a row, each of a limited number of the
 * divergent pages in ascending order; the last one has the device state. So the leader never holds all of it, and
 * the backup checks all of it before a byte is applied.
 */
import { shippedAs, stagingBytesMax, type StagingNumbers } from '../../../merkle/staging-format.ts';
import { StagingReader } from '../../../merkle/staging-reader.ts';
import { StagingWriter } from '../../../merkle/staging-writer.ts';
import type { MerkleTree } from '../../../merkle/tree.ts';
import type { CommonVersions } from './common-versions.ts';
import type { ExchangeGuest } from './exchange-guest.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import type { PartSource } from './part-sender.ts';
import type { StagedBytes } from './round-report.ts';

const SECTION_PAGES = 1024;
const WANTS_STATE = 1;

/** The leader's side: makes the stream while it is sent. The guest must stand until all of it has gone. */
export class StagingSource implements PartSource {
  readonly #common: CommonVersions;
  readonly #writer: StagingWriter;
  #area = new Uint8Array(0);
  #numbers: StagingNumbers = { term: 0, round: 0, attempt: 0 };
  #pages = new Uint32Array(0);
  #count = 0;
  #state: Uint8Array = new Uint8Array(0);
  /** Pages in the sections made so far; the last section is made even if it has none. */
  #next = 0;
  #ended = true;
  /** Of the section at hand: what of it is not yet in the stream. */
  #rest: Uint8Array = new Uint8Array(0);
  /** Of the stream as made so far. */
  bytes = 0;
  #bytesAs = nothingStaged();

  constructor(common: CommonVersions) {
    this.#common = common;
    this.#writer = new StagingWriter(common.parts);
  }

  begin(numbers: StagingNumbers, pages: Uint32Array, count: number, state: Uint8Array): void {
    this.#numbers = numbers;
    this.#pages = pages as Uint32Array<ArrayBuffer>;
    this.#count = count;
    this.#state = state;
    this.rewind();
  }

  rewind(): void {
    this.#next = 0;
    this.#ended = false;
    this.#rest = new Uint8Array(0);
    this.bytes = 0;
    this.#bytesAs = nothingStaged();
  }

  /** Of the stream as made so far, by form. */
  get bytesAs(): StagedBytes {
    return { ...this.#bytesAs };
  }

  fill(out: Uint8Array): number {
    let at = 0;
    while (at < out.length) {
      if (this.#rest.length === 0 && !this.#makeSection()) break;
      const part = this.#rest.subarray(0, out.length - at);
      out.set(part, at);
      at += part.length;
      this.#rest = this.#rest.subarray(part.length);
    }
    this.bytes += at;
    return at;
  }

  #makeSection(): boolean {
    if (this.#ended) return false;
    const first = this.#next;
    const count = Math.min(SECTION_PAGES, this.#count - first);
    this.#next = first + count;
    this.#ended = this.#next === this.#count;
    const state = this.#ended ? this.#state : NOTHING;
    const needed = stagingBytesMax(count, state.length, this.#common.parts.space.pageBytes);
    if (this.#area.length < needed) this.#area = new Uint8Array(needed);
    const pages = this.#pages.subarray(first, first + count);
    const bytes = this.#writer.write(this.#area, this.#numbers, pages, count, state);
    this.#rest = this.#area.subarray(0, bytes);
    this.#tally();
    return true;
  }

  #tally(): void {
    const { bytesAs, stateBytes } = this.#writer;
    const sum = this.#bytesAs;
    sum.zero += bytesAs[shippedAs.zero] ?? 0;
    sum.repeated += bytesAs[shippedAs.repeated] ?? 0;
    sum.sparse += bytesAs[shippedAs.sparse] ?? 0;
    sum.delta += bytesAs[shippedAs.delta] ?? 0;
    sum.whole += bytesAs[shippedAs.whole] ?? 0;
    sum.state += stateBytes;
  }

  /**
   * The backup lacks the bases that `payload` names: they are common no more, so that all of it goes whole next time.
   * Returns how many pages. Throws `ExchangeRefusal` on what was not shipped as a delta, so each page is asked for once.
   */
  forgetWanted(payload: Uint8Array): number {
    const { pages, state } = this.#common;
    if (payload.length < 4 || payload.length % 4 !== 0)
      throw new ExchangeRefusal(`A request for whole pages of ${payload.length} bytes`);
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const wantsState = view.getUint32(0, true) === WANTS_STATE;
    const count = payload.length / 4 - 1;
    if ((count === 0 && !wantsState) || (wantsState && state.byteLength === 0))
      throw new ExchangeRefusal('A device state was asked for whole that was shipped whole');
    let shipped = 0;
    for (let at = 4; at < payload.length; at += 4) {
      const page = view.getUint32(at, true);
      while (shipped < this.#count && (this.#pages[shipped] ?? 0) < page) shipped++;
      if (shipped === this.#count || this.#pages[shipped] !== page || pages.slotOf(page) < 0)
        throw new ExchangeRefusal(`Page ${page} was asked for whole, and was not shipped as a delta`);
      pages.forget(page);
    }
    if (wantsState) state.clear();
    return count;
  }
}

function nothingStaged(): { -readonly [Form in keyof StagedBytes]: number } {
  return { zero: 0, repeated: 0, sparse: 0, delta: 0, whole: 0, state: 0 };
}

/** The backup's side: a staging that is complete and makes sense, until it is applied. */
export class Staging {
  readonly #guest: ExchangeGuest;
  readonly #common: CommonVersions;
  readonly #reader: StagingReader;
  #bytes: Uint8Array = new Uint8Array(0);
  #numbers: StagingNumbers = { term: 0, round: 0, attempt: 0 };
  #asked = new Uint32Array(0);
  #state: Uint8Array = new Uint8Array(0);
  readonly #stateBytesMax: number;
  #wanted: number[] = [];

  constructor(guest: ExchangeGuest, common: CommonVersions, stateBytesMax: number) {
    this.#stateBytesMax = stateBytesMax;
    this.#guest = guest;
    this.#common = common;
    this.#reader = new StagingReader(common.parts);
  }

  /**
   * Undefined: it can be applied. Otherwise what to answer: the pages, and perhaps the state, whose bases are not here.
   * Throws on what no leader that was told of exactly the pages `asked`, ascending, would stage.
   */
  read(bytes: Uint8Array, numbers: StagingNumbers, asked: Uint32Array): Uint8Array | undefined {
    this.#bytes = bytes;
    this.#numbers = numbers;
    this.#asked = asked as Uint32Array<ArrayBuffer>;
    this.#wanted = [0];
    this.#eachSection(() => {
      const { wantedPages, wantedCount, wantsState } = this.#reader;
      for (let at = 0; at < wantedCount; at++) this.#wanted.push(wantedPages[at] ?? 0);
      if (wantsState) this.#wanted[0] = WANTS_STATE;
    });
    const wanted = Uint32Array.from(this.#wanted);
    if (wanted.length > 1 || wanted[0] !== 0) return requestOf(wanted);
    // A state grows by no more than its delta has: nobody may claim memory that was not sent.
    const stateBytes = this.#reader.stateByteLength;
    if (stateBytes > this.#common.state.byteLength + bytes.length)
      throw new ExchangeRefusal(`A state of ${stateBytes} bytes from a staging of ${bytes.length}`);
    this.#state = this.#reader.deviceState();
    this.#guest.checkState(this.#state);
    return undefined;
  }

  /** Checks one section after the other, and does `action` while the reader has it. */
  #eachSection(action: () => void): void {
    let at = 0;
    let page = 0;
    do {
      const asked = this.#asked.subarray(page, page + SECTION_PAGES);
      page += asked.length;
      const section = this.#bytes.subarray(at);
      this.#reader.check(section, this.#numbers, asked, asked.length, this.#stateBytesMax);
      at += this.#reader.byteLength;
      action();
    } while (page < this.#asked.length);
    if (at !== this.#bytes.length)
      throw new ExchangeRefusal(`The staging of ${this.#bytes.length} bytes goes on behind byte ${at}`);
  }

  /** Irrevocable, and may be done again from its beginning. */
  apply(): void {
    const guest = this.#guest;
    // The reader holds one section at a time; a second check of the same bytes finds the same.
    this.#eachSection(() => this.#reader.apply(this.#state));
    guest.invalidate(this.#asked, this.#asked.length);
    guest.loadState(this.#state);
  }

  /** This guest was proven equal: both sides have these pages and this state. */
  keep(tree: MerkleTree): void {
    this.#common.keep(tree, this.#asked, this.#asked.length, this.#state);
  }
}

function requestOf(wanted: Uint32Array): Uint8Array {
  const request = new Uint8Array(4 * wanted.length);
  const view = new DataView(request.buffer);
  for (let at = 0; at < wanted.length; at++) view.setUint32(4 * at, wanted[at] ?? 0, true);
  return request;
}

const NOTHING = new Uint8Array(0);
