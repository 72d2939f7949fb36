/**
 * The leader's side of step 5: puts the divergent pages and the device state into a staging area, each in the shortest
 * of the forms that it may take. Guarantees that the area is complete with its checksum, or refused before it was
 * touched beyond its end. The guest stands meanwhile.
 */
import type { CommonPages } from './common-pages.ts';
import { copyWords } from './common-pages.ts';
import { type CommonState, wordsOf } from './common-state.ts';
import { NO_ROOM, writeDelta } from './delta.ts';
import { HASH_WORDS } from './hash-list.ts';
import type { PageSpace } from './page-space.ts';
import { MerkleRefusal } from './refusal.ts';
import {
  BASE_NAME_BYTES,
  type Checksum,
  ENTRY_HEADER_BYTES,
  filledUp,
  headerAt,
  SHIPPED_KINDS,
  shippedAs,
  STAGING_HEADER_BYTES,
  STAGING_MAGIC,
  type StagingNumbers,
  writeBaseName,
  writeUint64,
} from './staging-format.ts';

/** With more than this share of its words not zero, a page is not tried as a sparse one. */
const SPARSE_SHARE = 1 / 2;
/** A delta longer than this share of a page is compared with the sparse form. */
const DELTA_SHARE_FINE = 1 / 8;
/** So many words of a page are looked at before a delta is tried: when more of them changed, it is not worth it. */
const SAMPLES = 16;
const SAMPLES_CHANGED_MAX = 13;
const NOTHING = new Uint32Array(0);

export interface StagingParts {
  readonly space: PageSpace;
  readonly common: CommonPages;
  readonly commonState: CommonState;
  readonly checksum: Checksum;
}

export class StagingWriter {
  readonly #parts: StagingParts;
  /** By kind: pages of the last staging, and bytes of them with their headers. */
  readonly pagesAs = new Uint32Array(SHIPPED_KINDS);
  readonly bytesAs = new Uint32Array(SHIPPED_KINDS);
  /** Bytes of the device state's payload. */
  stateBytes = 0;
  readonly #pageWords: number;
  readonly #pageBytes: number;
  #area = new Uint8Array(0);
  #words = new Uint32Array(0);
  #view = new DataView(this.#area.buffer);
  #at = 0;
  #kind: number = shippedAs.none;
  #stateWords = new Uint32Array(0);

  constructor(parts: StagingParts) {
    this.#parts = parts;
    this.#pageWords = parts.space.pageWords;
    this.#pageBytes = parts.space.pageBytes;
  }

  /**
   * Writes the first `count` of `pages` (ascending) and the device state to `area`, which begins at a multiple of 4
   * bytes. Returns how many bytes it took. Refuses an area that is too small, which then holds no staging.
   */
  write(
    area: Uint8Array<ArrayBuffer>,
    numbers: StagingNumbers,
    pages: Uint32Array,
    count: number,
    deviceState: Uint8Array,
  ): number {
    this.#begin(area);
    for (let at = 0; at < count; at++) this.#writePage(pages[at] ?? 0);
    const stateKind = this.#writeState(deviceState);
    this.#finish(numbers, count, stateKind, deviceState.length);
    return this.#at;
  }

  #begin(area: Uint8Array<ArrayBuffer>): void {
    if (area.byteOffset % 4 !== 0) throw new RangeError('A staging area begins at a multiple of 4 bytes');
    this.#area = area;
    this.#words = new Uint32Array(area.buffer, area.byteOffset, Math.floor(area.length / 4));
    this.#view = new DataView(area.buffer, area.byteOffset, area.length);
    this.pagesAs.fill(0);
    this.bytesAs.fill(0);
    this.#at = 0;
    this.#requireRoom(STAGING_HEADER_BYTES);
    // Whatever the area held before is no staging any more.
    this.#view.setUint32(headerAt.magic, 0, true);
    this.#at = STAGING_HEADER_BYTES;
  }

  #requireRoom(bytes: number): void {
    if (this.#at + bytes <= this.#area.length) return;
    throw new MerkleRefusal(
      'GAIA_MERKLE_STAGING_SIZE',
      `The staging area of ${this.#area.length} bytes is too small for the divergent pages and the device state: give it more, see stagingBytesMax`,
    );
  }

  #writePage(page: number): void {
    const { firstPage, words } = this.#parts.space.regionOf(page);
    const start = this.#at;
    this.#requireRoom(ENTRY_HEADER_BYTES);
    const payloadAt = start + ENTRY_HEADER_BYTES;
    const end = this.#writePayload(words, (page - firstPage) * this.#pageWords, page, payloadAt);
    const kind = this.#kind;
    this.#view.setUint32(start, page, true);
    this.#view.setUint16(start + 4, end - payloadAt, true);
    this.#view.setUint16(start + 6, kind, true);
    this.#at = this.#fillUp(end);
    this.pagesAs[kind] = (this.pagesAs[kind] ?? 0) + 1;
    this.bytesAs[kind] = (this.bytesAs[kind] ?? 0) + this.#at - start;
  }

  /** Returns where it ends; `#kind` is what it became. */
  #writePayload(words: Uint32Array, pageAt: number, page: number, at: number): number {
    this.#kind = shippedAs.zero;
    if (isZero(words, pageAt, this.#pageWords)) return at;
    this.#kind = shippedAs.repeated;
    if (isRepeated(words, pageAt, this.#pageWords)) return this.#writeRepeated(words, pageAt, at);
    const slot = this.#parts.common.slotOf(page);
    this.#kind = shippedAs.delta;
    let end = slot < 0 ? NO_ROOM : this.#writePageDelta(words, pageAt, slot, at);
    if (end !== NO_ROOM && end - at <= this.#pageBytes * DELTA_SHARE_FINE) return end;
    // A word that is not zero takes 8 bytes at most in the sparse form: so few of them are shorter.
    const sparseMax = end === NO_ROOM ? this.#pageWords * SPARSE_SHARE : Math.floor((end - at) / 8);
    if (countFilled(words, pageAt, this.#pageWords, sparseMax) <= sparseMax) {
      this.#kind = shippedAs.sparse;
      end = this.#writeSparse(words, pageAt, at);
    }
    if (end !== NO_ROOM) return end;
    this.#kind = shippedAs.whole;
    return this.#writeWhole(words, pageAt, at);
  }

  #writeRepeated(words: Uint32Array, pageAt: number, at: number): number {
    this.#requireRoom(ENTRY_HEADER_BYTES + 8);
    this.#view.setUint32(at, words[pageAt] ?? 0, true);
    this.#view.setUint32(at + 4, words[pageAt + 1] ?? 0, true);
    return at + 8;
  }

  #writePageDelta(words: Uint32Array, pageAt: number, slot: number, at: number): number {
    const { common } = this.#parts;
    const base = common.words;
    if (!seemsLike(base, slot * this.#pageWords, words, pageAt, this.#pageWords)) return NO_ROOM;
    const end = Math.min(at + this.#pageBytes, this.#area.length);
    if (at + BASE_NAME_BYTES > end) return NO_ROOM;
    writeBaseName(common.hashes, slot * HASH_WORDS, this.#view, at);
    const runsAt = at + BASE_NAME_BYTES;
    const baseAt = slot * this.#pageWords;
    return writeDelta(base, baseAt, this.#pageWords, words, pageAt, this.#pageWords, this.#area, runsAt, end);
  }

  #writeSparse(words: Uint32Array, pageAt: number, at: number): number {
    const end = Math.min(at + this.#pageBytes, this.#area.length);
    return writeDelta(NOTHING, 0, 0, words, pageAt, this.#pageWords, this.#area, at, end);
  }

  #writeWhole(words: Uint32Array, pageAt: number, at: number): number {
    this.#requireRoom(ENTRY_HEADER_BYTES + this.#pageBytes);
    copyWords(words, pageAt, this.#words, at / 4, this.#pageWords);
    return at + this.#pageBytes;
  }

  #writeState(state: Uint8Array): number {
    const start = this.#at;
    const { commonState } = this.#parts;
    this.stateBytes = 0;
    if (state.length === 0) return shippedAs.none;
    let end = NO_ROOM;
    const limit = Math.min(start + state.length, this.#area.length);
    if (commonState.byteLength > 0 && start + BASE_NAME_BYTES <= limit) {
      this.#stateWords = wordsOf(state, this.#stateWords);
      const wordCount = Math.ceil(state.length / 4);
      writeBaseName(commonState.hash, 0, this.#view, start);
      end = writeDelta(
        commonState.words,
        0,
        commonState.wordLength,
        this.#stateWords,
        0,
        wordCount,
        this.#area,
        start + BASE_NAME_BYTES,
        limit,
      );
    }
    const kind = end === NO_ROOM ? shippedAs.whole : shippedAs.delta;
    if (end === NO_ROOM) {
      this.#requireRoom(filledUp(state.length));
      this.#area.set(state, start);
      end = start + state.length;
    }
    this.stateBytes = end - start;
    this.#at = this.#fillUp(end);
    return kind;
  }

  /** Zeros up to a multiple of 4. */
  #fillUp(end: number): number {
    this.#at = end;
    const next = filledUp(end);
    this.#requireRoom(next - end);
    for (let at = end; at < next; at++) this.#area[at] = 0;
    return next;
  }

  #finish(
    { term, round, attempt }: StagingNumbers,
    pages: number,
    stateKind: number,
    stateBytes: number,
  ): void {
    const view = this.#view;
    writeUint64(view, headerAt.bytes, this.#at);
    writeUint64(view, headerAt.term, term);
    writeUint64(view, headerAt.round, round);
    view.setUint32(headerAt.attempt, attempt, true);
    view.setUint32(headerAt.pageCount, pages, true);
    view.setUint32(headerAt.stateKind, stateKind, true);
    view.setUint32(headerAt.stateBytes, stateBytes, true);
    view.setUint32(headerAt.statePayloadBytes, this.stateBytes, true);
    view.setUint32(headerAt.reserved, 0, true);
    const checksum = this.#parts.checksum(this.#area, headerAt.bytes, this.#at - headerAt.bytes, 0);
    view.setUint32(headerAt.checksum, checksum, true);
    view.setUint32(headerAt.magic, STAGING_MAGIC, true);
  }
}

function isZero(words: Uint32Array, at: number, pageWords: number): boolean {
  for (let word = at; word < at + pageWords; word++) if (words[word] !== 0) return false;
  return true;
}

/** Words of a page that are not zero; more than `max` need not be counted. */
function countFilled(words: Uint32Array, at: number, pageWords: number, max: number): number {
  let count = 0;
  for (let word = at; word < at + pageWords && count <= max; word++) if (words[word] !== 0) count++;
  return count;
}

/** Whether a sample of the page's words has enough in common with the base. */
function seemsLike(
  base: Uint32Array,
  baseAt: number,
  words: Uint32Array,
  at: number,
  pageWords: number,
): boolean {
  let changed = 0;
  for (let word = 0; word < pageWords; word += Math.max(1, pageWords / SAMPLES)) {
    if (base[baseAt + word] !== words[at + word]) changed++;
  }
  return changed <= SAMPLES_CHANGED_MAX;
}

/** Whether a page is one 8-byte word over and over. */
function isRepeated(words: Uint32Array, at: number, pageWords: number): boolean {
  for (let word = 2; word < pageWords; word++) {
    if (words[at + word] !== words[at + (word & 1)]) return false;
  }
  return true;
}
