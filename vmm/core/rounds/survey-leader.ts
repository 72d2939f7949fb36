/**
 * The leader's side of a survey: finds out, while its guest runs on, in which pages a standing guest differs, and
 * gives it those, so that the exchange that follows is about few pages. Pass by pass it hashes what may differ; what
 * is equal leaves the survey's set, what differs is shipped and looked at again in the next pass.
 *
 * Guarantee: a page leaves the set only when both hashes were equal after the last `turn`, and the guest's writes
 * since then are in its dirty bitmap, collected by the next one. So what the survey leaves behind, and what is not yet
 * collected, holds every page that differs. Pages that are lost on their way are found to differ once more.
 */
import { countBits, listBits, uniteInto } from '../../../merkle/bitmap.ts';
import { HASH_BYTES } from '../../../merkle/page-hasher.ts';
import { invariant } from '../invariant.ts';
import { EXCHANGE_HEADER_BYTES, MessageType, sealMessage, type ExchangeMessage } from './exchange-message.ts';
import type { ExchangeMemory, ExchangeSettings } from './exchange-memory.ts';
import { PartAssembly } from './part-assembly.ts';
import { PartSender } from './part-sender.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import type { RoundName } from './unreconciled-set.ts';

/** Hashed in one go: well below a millisecond, so that rounds and heartbeats go on. */
const chunkPagesMax = 512;
const leftPagesUsual = 2048;
/** A guest that changes its memory faster than it travels stands for more. */
const passesMax = 6;
const SURVEY_OPEN_BYTES = 24;
export const SURVEY_NAME_BYTES = 16;
export const PAGE_ENTRY_BYTES = 8;
export const PAGE_WHOLE = 1;
/** Tells the names of surveys from those of rounds. */
const SURVEY_ATTEMPTS = 0x8000_0000;

type Phase = 'idle' | 'opening' | 'turning' | 'comparing' | 'shipping' | 'ending' | 'done' | 'declined';

export class SurveyLeader {
  readonly #memory: ExchangeMemory;
  readonly #settings: ExchangeSettings;
  readonly #sender: PartSender;
  readonly #answer: PartAssembly;
  readonly #chunkPages: number;
  readonly #hashes: Uint8Array;
  readonly #message: Uint8Array;
  /** What may differ, as far as the survey knows. */
  readonly #set: Uint32Array;
  readonly #fresh: Uint32Array;
  #phase: Phase = 'idle';
  #term = 0;
  #number = 0;
  #session = 0;
  #step = 0;
  #passes = 0;
  /** Of the pass under way. */
  #pages = new Uint32Array(0);
  #pageCount = 0;
  #at = 0;
  #chunk = 0;
  /** Of the chunk under way: those that differ, and how many of them were sent. */
  readonly #differing: Uint32Array;
  #differingCount = 0;
  #shipped = 0;
  #ready: Uint8Array | undefined;
  #resendAtUs = Infinity;
  #nowUs = 0;
  sentBytes = 0;
  /** When something last came of it. */
  progressUs = 0;
  beganUs = 0;

  constructor(memory: ExchangeMemory, settings: ExchangeSettings) {
    const { partBytes, crc32c, stagingBytesMax } = settings;
    this.#memory = memory;
    this.#settings = settings;
    this.#sender = new PartSender(crc32c, partBytes);
    this.#answer = new PartAssembly(partBytes, stagingBytesMax);
    this.#chunkPages = Math.max(1, Math.min(chunkPagesMax, Math.floor((partBytes - 4) / (4 + HASH_BYTES))));
    this.#hashes = new Uint8Array(this.#chunkPages * HASH_BYTES);
    this.#differing = new Uint32Array(this.#chunkPages);
    const { pageBytes } = memory.guest.space;
    const entries = Math.max(1, Math.floor(partBytes / (PAGE_ENTRY_BYTES + pageBytes)));
    this.#message = new Uint8Array(EXCHANGE_HEADER_BYTES + entries * (PAGE_ENTRY_BYTES + pageBytes));
    this.#set = new Uint32Array(memory.union.length);
    this.#fresh = new Uint32Array(memory.union.length);
  }

  get underWay(): boolean {
    return this.#phase !== 'idle' && this.#phase !== 'done' && this.#phase !== 'declined';
  }

  /** It goes on at the next `turn`, for which the guest has to stand. */
  get wantsTurn(): boolean {
    return this.#phase === 'turning';
  }

  /** Once: both sides name the same round, and the exchange may begin. */
  takeDone(): boolean {
    if (this.#phase !== 'done') return false;
    this.#phase = 'idle';
    return true;
  }

  /** Once: the other guest does not wait to be made equal. */
  takeDeclined(): boolean {
    if (this.#phase !== 'declined') return false;
    this.#phase = 'idle';
    return true;
  }

  begin(term: number, nowUs: number): void {
    invariant(!this.underWay, 'one survey at a time');
    const { set } = this.#memory;
    this.#nowUs = nowUs;
    this.beganUs = nowUs;
    this.progressUs = nowUs;
    this.sentBytes = 0;
    this.#term = term;
    this.#number++;
    this.#session = 0;
    this.#passes = 0;
    this.#phase = 'opening';
    const payload = new Uint8Array(SURVEY_OPEN_BYTES);
    const view = new DataView(payload.buffer);
    view.setUint32(0, set.intact ? 1 : 0, true);
    writeName(view, 8, set.last);
    this.#ask(MessageType.surveyOpen, 0, payload);
  }

  abandon(): void {
    this.#phase = 'idle';
    this.#rest();
  }

  tick(nowUs: number): void {
    this.#nowUs = nowUs;
    if (nowUs >= this.#resendAtUs && this.#sender.exhausted && this.#ready === undefined)
      this.#sender.again();
  }

  get deadlineUs(): number {
    return this.#resendAtUs;
  }

  /**
   * The guest stands between two rounds: what it has changed joins the set, and another pass begins, unless little is
   * left: then the survey ends here.
   */
  turn(nowUs: number): void {
    invariant(this.#phase === 'turning', 'a turn is taken when it is wanted');
    const { guest, set } = this.#memory;
    this.#nowUs = nowUs;
    this.progressUs = nowUs;
    // Into the lasting set, too: the survey may be given up.
    this.#fresh.fill(0);
    guest.collectInto(this.#fresh);
    uniteInto(set.since, this.#fresh);
    uniteInto(this.#set, this.#fresh);
    const count = countBits(this.#set);
    if (count <= (this.#settings.surveyLeftPages ?? leftPagesUsual) || this.#passes === passesMax) {
      this.#end();
      return;
    }
    this.#passes++;
    if (this.#pages.length < count) this.#pages = new Uint32Array(count);
    this.#pageCount = listBits(this.#set, this.#pages);
    this.#at = 0;
    this.#compareNext();
  }

  /** The next message for the partner, the same until `sent`. */
  peek(): Uint8Array | undefined {
    if (!this.underWay) return undefined;
    if (this.#phase !== 'shipping') return this.#sender.peek();
    this.#ready ??= this.#pagesMessage();
    return this.#ready ?? this.#sender.peek();
  }

  sent(): void {
    if (this.#ready !== undefined) {
      this.sentBytes += this.#ready.length;
      this.#ready = undefined;
      this.progressUs = this.#nowUs;
      if (this.#shipped === this.#differingCount) this.#compareNext();
      return;
    }
    this.sentBytes += this.#sender.peek()?.length ?? 0;
    this.#sender.sent();
    this.#resendAtUs = this.#nowUs + this.#settings.resendUs;
  }

  receive(message: ExchangeMessage, nowUs: number): void {
    this.#nowUs = nowUs;
    if (!this.underWay || message.term !== this.#term || message.attempt !== this.#number) return;
    if (message.step !== this.#step || (this.#session !== 0 && message.session !== this.#session)) return;
    this.progressUs = nowUs;
    this.#answer.add(message.part, message.payload);
    if (!this.#answer.complete(message.totalBytes)) return;
    const payload = this.#answer.bytes(message.totalBytes);
    if (message.type === MessageType.declined) this.#declined();
    else if (message.type === MessageType.surveyOpened && this.#phase === 'opening')
      this.#opened(message.session, payload);
    else if (message.type === MessageType.surveyDiffer && this.#phase === 'comparing') this.#differ(payload);
    else if (message.type === MessageType.surveyEnded && this.#phase === 'ending') {
      this.#phase = 'done';
      this.#rest();
    }
  }

  #declined(): void {
    this.#phase = 'declined';
    this.#rest();
  }

  #opened(session: number, payload: Uint8Array): void {
    const memory = this.#memory;
    this.#session = session;
    if (payload.length === 0) this.#set.set(memory.all);
    else {
      this.#set.set(memory.ownSet());
      uniteInto(this.#set, memory.bitmapFrom(payload, 0));
    }
    this.#phase = 'turning';
    this.#resendAtUs = Infinity;
    this.#sender.stop();
  }

  #compareNext(): void {
    if (this.#at === this.#pageCount) {
      this.#phase = 'turning';
      this.#resendAtUs = Infinity;
      this.#sender.stop();
      return;
    }
    this.#phase = 'comparing';
    const count = Math.min(this.#chunkPages, this.#pageCount - this.#at);
    this.#chunk = count;
    const pages = this.#pages.subarray(this.#at, this.#at + count);
    const payload = new Uint8Array(4 + count * (4 + HASH_BYTES));
    const view = new DataView(payload.buffer);
    view.setUint32(0, count, true);
    for (let at = 0; at < count; at++) view.setUint32(4 + 4 * at, pages[at] ?? 0, true);
    this.#memory.guest.hasher.hashPages(pages, count, this.#hashes);
    payload.set(this.#hashes.subarray(0, count * HASH_BYTES), 4 + 4 * count);
    this.#ask(MessageType.surveyHashes, this.#step + 1, payload);
  }

  #differ(bits: Uint8Array): void {
    if (bits.length !== Math.ceil(this.#chunk / 8))
      throw new ExchangeRefusal(`An answer of ${bits.length} bytes to ${this.#chunk} hashes`);
    this.#differingCount = 0;
    this.#shipped = 0;
    for (let at = 0; at < this.#chunk; at++) {
      const page = this.#pages[this.#at + at] ?? 0;
      if ((((bits[at >>> 3] ?? 0) >>> (at & 7)) & 1) === 1) this.#differing[this.#differingCount++] = page;
      else this.#set[page >>> 5] = (this.#set[page >>> 5] ?? 0) & ~(1 << (page & 31));
    }
    this.#at += this.#chunk;
    if (this.#differingCount === 0) {
      this.#compareNext();
      return;
    }
    this.#phase = 'shipping';
    this.#resendAtUs = Infinity;
    this.#sender.stop();
  }

  /** As many of the differing pages as fit; they may change while they are copied, and are then in the dirty bitmap. */
  #pagesMessage(): Uint8Array | undefined {
    if (this.#shipped === this.#differingCount) return undefined;
    const { space } = this.#memory.guest;
    const { pageBytes, pageWords } = space;
    const view = new DataView(this.#message.buffer);
    let at = EXCHANGE_HEADER_BYTES;
    while (
      this.#shipped < this.#differingCount &&
      at + PAGE_ENTRY_BYTES + pageBytes <= this.#message.length
    ) {
      const page = this.#differing[this.#shipped++] ?? 0;
      const region = space.regionOf(page);
      const from = (page - region.firstPage) * pageWords;
      const words = region.words.subarray(from, from + pageWords);
      view.setUint32(at, page, true);
      if (isZero(words)) {
        view.setUint32(at + 4, 0, true);
        at += PAGE_ENTRY_BYTES;
        continue;
      }
      view.setUint32(at + 4, PAGE_WHOLE, true);
      this.#message.set(new Uint8Array(words.buffer, words.byteOffset, pageBytes), at + PAGE_ENTRY_BYTES);
      at += PAGE_ENTRY_BYTES + pageBytes;
    }
    const message = this.#message.subarray(0, at);
    const totalBytes = at - EXCHANGE_HEADER_BYTES;
    sealMessage(
      message,
      { ...this.#heading(MessageType.surveyPages), part: 0, totalBytes },
      this.#settings.crc32c,
    );
    return message;
  }

  #end(): void {
    const name = { term: this.#term, attempt: SURVEY_ATTEMPTS + this.#number, index: this.#step };
    // If only one of both sides gets to know of it, their names differ, and all pages are compared.
    this.#memory.set.restart(name, this.#set);
    this.#phase = 'ending';
    const payload = new Uint8Array(SURVEY_NAME_BYTES);
    writeName(new DataView(payload.buffer), 0, name);
    this.#ask(MessageType.surveyEnd, this.#step + 1, payload);
  }

  #ask(type: number, step: number, payload: Uint8Array): void {
    this.#step = step;
    this.#answer.begin();
    this.#sender.begin(this.#heading(type), payload);
  }

  #heading(type: number) {
    return {
      ...{ type, term: this.#term, attempt: this.#number, index: 0 },
      ...{ session: this.#session, step: this.#step },
    };
  }

  #rest(): void {
    this.#resendAtUs = Infinity;
    this.#ready = undefined;
    this.#sender.stop();
  }
}

function writeName(view: DataView, at: number, { term, attempt, index }: RoundName): void {
  view.setUint32(at, term, true);
  view.setUint32(at + 4, attempt, true);
  view.setBigUint64(at + 8, BigInt(index), true);
}

function isZero(words: Uint32Array): boolean {
  return words.every((word) => word === 0);
}
