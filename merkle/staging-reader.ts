/**
 * The backup's side of steps 5 and 6: checks a staging area as a whole, then applies it.
 *
 * `check` changes nothing outside of this object. It copies the staging first: what was checked is what is applied,
 * whatever a late writer does to the area. When it has returned true, `apply` cannot fail. Both may be repeated.
 */
import { copyWords } from './common-pages.ts';
import { DeltaReader } from './delta.ts';
import { grown, withRoom } from './grow.ts';
import { HASH_WORDS } from './hash-list.ts';
import { MerkleRefusal } from './refusal.ts';
import {
  BASE_NAME_BYTES,
  ENTRY_HEADER_BYTES,
  filledUp,
  headerAt,
  namesBase,
  readUint64,
  shippedAs,
  STAGING_HEADER_BYTES,
  STAGING_MAGIC,
  type StagingNumbers,
} from './staging-format.ts';
import type { StagingParts } from './staging-writer.ts';

export class StagingReader {
  readonly #parts: StagingParts;
  readonly #delta = new DeltaReader();
  readonly #pageWords: number;
  readonly #pageBytes: number;
  #bytes = new Uint8Array(0);
  #words = new Uint32Array(0);
  #view = new DataView(this.#bytes.buffer);
  #byteLength = 0;
  #pageCount = 0;
  #stateAt = 0;
  #stateKind: number = shippedAs.none;
  #stateBytes = 0;
  #statePayloadBytes = 0;
  #stateWords = new Uint32Array(0);
  /** The last check found all that is needed. */
  #ready = false;
  /** The first `wantedCount` are pages whose base is not here, ascending: to be asked for whole. */
  wantedPages = new Uint32Array(0);
  wantedCount = 0;
  /** The device state's base is not here either. */
  wantsState = false;

  constructor(parts: StagingParts) {
    this.#parts = parts;
    this.#pageWords = parts.space.pageWords;
    this.#pageBytes = parts.space.pageBytes;
  }

  /**
   * Checks the staging in `area`: it must be of these numbers, undamaged, with exactly the first `askedCount` of the
   * pages `asked` (ascending), and a device state of at most `stateBytesMax`. Returns true when it can be applied,
   * false when bases are missing: then `wantedPages` and `wantsState` say which. Refuses everything else.
   */
  check(
    area: Uint8Array,
    numbers: StagingNumbers,
    asked: Uint32Array,
    askedCount: number,
    stateBytesMax: number,
  ): boolean {
    this.#ready = false;
    this.wantedCount = 0;
    this.wantsState = false;
    this.#take(area);
    this.#checkHeader(numbers, askedCount, stateBytesMax);
    let at = STAGING_HEADER_BYTES;
    for (let entry = 0; entry < askedCount; entry++) at = this.#checkEntry(at, asked[entry] ?? 0);
    this.#stateAt = at;
    this.#checkState();
    this.#ready = this.wantedCount === 0 && !this.wantsState;
    return this.#ready;
  }

  /** The area's content becomes this object's own; its length is the only thing believed so far. */
  #take(area: Uint8Array): void {
    if (area.length < STAGING_HEADER_BYTES) refuseSize(area.length, STAGING_HEADER_BYTES);
    this.#reserve(STAGING_HEADER_BYTES);
    for (let at = 0; at < STAGING_HEADER_BYTES; at++) this.#bytes[at] = area[at] ?? 0;
    if (this.#view.getUint32(headerAt.magic, true) !== STAGING_MAGIC) {
      throw new MerkleRefusal('GAIA_MERKLE_STAGING_FORM', 'The staging area holds no staging');
    }
    const bytes = readUint64(this.#view, headerAt.bytes);
    if (bytes < STAGING_HEADER_BYTES || bytes % 4 !== 0) refuseForm(`${bytes} bytes cannot be its length`);
    if (bytes > area.length) refuseSize(area.length, bytes);
    this.#reserve(bytes);
    this.#bytes.set(area.subarray(0, bytes));
    this.#byteLength = bytes;
    const length = readUint64(this.#view, headerAt.bytes);
    const checksum = this.#parts.checksum(this.#bytes, headerAt.bytes, bytes - headerAt.bytes, 0) >>> 0;
    if (length !== bytes || checksum !== this.#view.getUint32(headerAt.checksum, true)) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_STAGING_CHECKSUM',
        `The staging of ${bytes} bytes is damaged or incomplete: its checksum does not hold`,
      );
    }
  }

  #reserve(bytes: number): void {
    if (this.#bytes.length >= bytes) return;
    const larger = new Uint8Array(filledUp(grown(this.#bytes.length, bytes)));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#words = new Uint32Array(larger.buffer);
    this.#view = new DataView(larger.buffer);
  }

  #checkHeader({ term, round, attempt }: StagingNumbers, askedCount: number, stateBytesMax: number): void {
    const view = this.#view;
    const theirTerm = readUint64(view, headerAt.term);
    const theirRound = readUint64(view, headerAt.round);
    const theirAttempt = view.getUint32(headerAt.attempt, true);
    if (theirTerm !== term || theirRound !== round || theirAttempt !== attempt) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_STAGING_STALE',
        `The staging is of term ${theirTerm}, round ${theirRound}, attempt ${theirAttempt}, not of ${term}, ${round}, ${attempt}`,
      );
    }
    this.#pageCount = view.getUint32(headerAt.pageCount, true);
    if (this.#pageCount !== askedCount) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_NOT_ASKED',
        `The staging has ${this.#pageCount} pages, asked for were ${askedCount}`,
      );
    }
    this.#stateKind = view.getUint32(headerAt.stateKind, true);
    this.#stateBytes = view.getUint32(headerAt.stateBytes, true);
    this.#statePayloadBytes = view.getUint32(headerAt.statePayloadBytes, true);
    if (this.#stateBytes > stateBytesMax) refuseSize(stateBytesMax, this.#stateBytes);
    if (view.getUint32(headerAt.reserved, true) !== 0) refuseForm('a reserved field is set');
  }

  /** Checks the entry at `at`. Returns where the next one begins. */
  #checkEntry(at: number, page: number): number {
    if (at + ENTRY_HEADER_BYTES > this.#byteLength) refuseForm('it ends within its pages');
    const theirs = this.#view.getUint32(at, true);
    if (theirs !== page) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_NOT_ASKED',
        `The staging has page ${theirs} where page ${page} was asked for`,
      );
    }
    this.#parts.space.regionOf(page);
    const payloadAt = at + ENTRY_HEADER_BYTES;
    const bytes = this.#view.getUint16(at + 4, true);
    const kind = this.#view.getUint16(at + 6, true);
    const next = payloadAt + filledUp(bytes);
    if (next > this.#byteLength) refuseForm(`page ${page} goes past its end`);
    if (!this.#isPayload(kind, payloadAt, bytes)) refuseForm(`page ${page} is in no form that exists`);
    if (kind === shippedAs.delta && !this.#hasBase(page, payloadAt)) {
      this.wantedPages = withRoom(this.wantedPages, this.wantedCount + 1);
      this.wantedPages[this.wantedCount++] = page;
    }
    return next;
  }

  #isPayload(kind: number, at: number, bytes: number): boolean {
    switch (kind) {
      case shippedAs.zero:
        return bytes === 0;
      case shippedAs.repeated:
        return bytes === 8;
      case shippedAs.sparse:
        return this.#isDelta(at, at + bytes, this.#pageBytes);
      case shippedAs.delta:
        return bytes >= BASE_NAME_BYTES && this.#isDelta(at + BASE_NAME_BYTES, at + bytes, this.#pageBytes);
      case shippedAs.whole:
        return bytes === this.#pageBytes;
      default:
        return false;
    }
  }

  #isDelta(at: number, end: number, length: number): boolean {
    this.#delta.begin(this.#bytes, at, end, length);
    return this.#delta.isWhole();
  }

  #hasBase(page: number, nameAt: number): boolean {
    const slot = this.#parts.common.slotOf(page);
    return slot >= 0 && namesBase(this.#parts.common.hashes, slot * HASH_WORDS, this.#view, nameAt);
  }

  #checkState(): void {
    const [at, bytes] = [this.#stateAt, this.#statePayloadBytes];
    if (at + filledUp(bytes) !== this.#byteLength) refuseForm('its device state does not end where it does');
    switch (this.#stateKind) {
      case shippedAs.none:
        if (bytes !== 0 || this.#stateBytes !== 0) refuseForm('it has a device state and has none');
        return;
      case shippedAs.whole:
        if (bytes !== this.#stateBytes) refuseForm('its device state has two lengths');
        return;
      case shippedAs.delta: {
        const { commonState } = this.#parts;
        const runsAt = at + BASE_NAME_BYTES;
        const length = filledUp(this.#stateBytes);
        if (bytes < BASE_NAME_BYTES || !this.#isDelta(runsAt, at + bytes, length))
          refuseForm('its device state is no delta');
        this.wantsState = commonState.byteLength === 0 || !namesBase(commonState.hash, 0, this.#view, at);
        return;
      }
      default:
        refuseForm('its device state is in no form that exists');
    }
  }

  /**
   * Writes all pages and, to the front of `deviceState`, the device state. Returns its length. Only after `check` has
   * returned true, with the guest standing.
   */
  apply(deviceState: Uint8Array): number {
    if (!this.#ready) throw new RangeError('A staging is applied only after it was checked');
    let at = STAGING_HEADER_BYTES;
    for (let entry = 0; entry < this.#pageCount; entry++) at = this.#applyEntry(at);
    this.#applyState(deviceState);
    return this.#stateBytes;
  }

  /** Bytes that the device state says it has. */
  get stateByteLength(): number {
    return this.#stateBytes;
  }

  /** Bytes of the staging that was checked last. */
  get byteLength(): number {
    return this.#byteLength;
  }

  /** The device state alone, for whoever has a look before anything is applied. Only after `check` has returned true. */
  deviceState(): Uint8Array {
    if (!this.#ready) throw new RangeError('A device state is read only after it was checked');
    const state = new Uint8Array(this.#stateBytes);
    this.#applyState(state);
    return state;
  }

  #applyEntry(at: number): number {
    const { space, common } = this.#parts;
    const page = this.#view.getUint32(at, true);
    const bytes = this.#view.getUint16(at + 4, true);
    const { firstPage, words } = space.regionOf(page);
    const pageAt = (page - firstPage) * this.#pageWords;
    const payloadAt = at + ENTRY_HEADER_BYTES;
    const end = payloadAt + bytes;
    switch (this.#view.getUint16(at + 6, true)) {
      case shippedAs.repeated:
        fillWith(
          words,
          pageAt,
          this.#pageWords,
          this.#words[payloadAt / 4] ?? 0,
          this.#words[payloadAt / 4 + 1] ?? 0,
        );
        break;
      case shippedAs.delta:
        copyWords(common.words, common.slotOf(page) * this.#pageWords, words, pageAt, this.#pageWords);
        this.#delta.begin(this.#bytes, payloadAt + BASE_NAME_BYTES, end, this.#pageBytes);
        this.#delta.applyTo(words, pageAt);
        break;
      case shippedAs.whole:
        copyWords(this.#words, payloadAt / 4, words, pageAt, this.#pageWords);
        break;
      default:
        // Zeros, or a delta from them.
        fillWith(words, pageAt, this.#pageWords, 0, 0);
        this.#delta.begin(this.#bytes, payloadAt, end, this.#pageBytes);
        this.#delta.applyTo(words, pageAt);
    }
    return payloadAt + filledUp(bytes);
  }

  #applyState(deviceState: Uint8Array): void {
    const at = this.#stateAt;
    if (this.#stateKind === shippedAs.delta) {
      const { commonState } = this.#parts;
      const count = Math.ceil(this.#stateBytes / 4);
      this.#stateWords = withRoom(this.#stateWords, count);
      this.#stateWords.fill(0, 0, count);
      this.#stateWords.set(commonState.words.subarray(0, Math.min(count, commonState.wordLength)));
      const end = at + this.#statePayloadBytes;
      this.#delta.begin(this.#bytes, at + BASE_NAME_BYTES, end, 4 * count);
      this.#delta.applyTo(this.#stateWords, 0);
      deviceState.set(new Uint8Array(this.#stateWords.buffer, 0, this.#stateBytes));
    } else {
      deviceState.set(this.#bytes.subarray(at, at + this.#stateBytes));
    }
  }
}

/** Two words in turn over the page at `at`. */
function fillWith(words: Uint32Array, at: number, pageWords: number, even: number, odd: number): void {
  for (let word = 0; word < pageWords; word += 2) {
    words[at + word] = even;
    words[at + word + 1] = odd;
  }
}

function refuseForm(why: string): never {
  throw new MerkleRefusal('GAIA_MERKLE_STAGING_FORM', `The staging is malformed: ${why}`);
}

function refuseSize(room: number, needed: number): never {
  throw new MerkleRefusal(
    'GAIA_MERKLE_STAGING_SIZE',
    `There is room for ${room} bytes where the staging needs ${needed}`,
  );
}
