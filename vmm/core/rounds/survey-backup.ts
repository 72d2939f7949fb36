/**
 * The standing guest's side of a survey (survey-leader.ts). Guarantees: from its opening on nothing of what was known
 * about this guest counts, until the survey's end names the round that both sides go on from; pages are taken only for
 * the step under way, and only those that were just found to differ.
 */
import { setBit, hasBit, listBits, countBits } from '../../../merkle/bitmap.ts';
import { HASH_BYTES } from '../../../merkle/page-hasher.ts';
import { readUint64 } from '../falcon/record.ts';
import { MessageType, type ExchangeMessage } from './exchange-message.ts';
import type { ExchangeMemory, ExchangeSettings } from './exchange-memory.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import { PartAssembly } from './part-assembly.ts';
import { PartSender } from './part-sender.ts';
import { PAGE_ENTRY_BYTES, PAGE_WHOLE, SURVEY_NAME_BYTES } from './survey-leader.ts';
import { sameRound, type RoundName } from './unreconciled-set.ts';

const nothing = new Uint8Array(0);

export class SurveyBackup {
  readonly #memory: ExchangeMemory;
  readonly #settings: ExchangeSettings;
  readonly #sender: PartSender;
  readonly #question: PartAssembly;
  /** Of the last step: the pages that differ. */
  readonly #differing: Uint32Array;
  /** Written in this survey. */
  readonly #written: Uint32Array;
  readonly #none: Uint32Array;
  #term = 0;
  #number = 0;
  /** The step that was answered last; -1: no survey. */
  #step = -1;

  constructor(memory: ExchangeMemory, settings: ExchangeSettings) {
    this.#memory = memory;
    this.#settings = settings;
    this.#sender = new PartSender(settings.crc32c, settings.partBytes);
    this.#question = new PartAssembly(settings.partBytes, settings.stagingBytesMax);
    const { length } = memory.union;
    this.#differing = new Uint32Array(length);
    this.#written = new Uint32Array(length);
    this.#none = new Uint32Array(length);
  }

  enterTerm(term: number): void {
    if (term === this.#term) return;
    this.#term = term;
    this.#number = 0;
    this.abandon();
  }

  abandon(): void {
    this.#step = -1;
    this.#sender.stop();
  }

  peek(): Uint8Array | undefined {
    return this.#sender.peek();
  }

  sent(): void {
    this.#sender.sent();
  }

  /** `waits`: this guest stands and waits to be made equal. */
  receive(message: ExchangeMessage, waits: boolean): void {
    if (message.term !== this.#term) return;
    if (message.type === MessageType.surveyOpen) {
      if (!waits) this.#answer(message, MessageType.declined, nothing);
      else this.#opened(message);
      return;
    }
    const known = message.attempt === this.#number && message.session === this.#settings.session;
    if (this.#step < 0 || !waits || !known) {
      if (message.type !== MessageType.surveyPages) this.#answer(message, MessageType.declined, nothing);
      return;
    }
    if (message.type === MessageType.surveyPages) {
      if (message.step === this.#step) this.#take(message.payload);
    } else if (message.step === this.#step) this.#sender.again();
    else if (message.step === this.#step + 1) this.#next(message);
  }

  #opened(message: ExchangeMessage): void {
    if (message.attempt < this.#number) return;
    if (message.attempt === this.#number && this.#step >= 0) {
      if (this.#step === 0) this.#sender.again();
      return;
    }
    if (message.payload.length < 24) throw new ExchangeRefusal(`A survey of ${message.payload.length} bytes`);
    const { set, guest } = this.#memory;
    const view = new DataView(message.payload.buffer, message.payload.byteOffset, message.payload.length);
    this.#number = message.attempt;
    this.#written.fill(0);
    this.#differing.fill(0);
    guest.collectInto(set.since);
    const known = view.getUint32(0, true) === 1 && set.intact && sameRound(readName(view, 8), set.last);
    const own = known ? new Uint8Array(this.#memory.ownSet().buffer.slice(0)) : nothing;
    set.lose();
    set.valid = false;
    this.#step = 0;
    this.#answer(message, MessageType.surveyOpened, own);
  }

  #next(message: ExchangeMessage): void {
    if (message.part === 0) this.#question.begin();
    this.#question.add(message.part, message.payload);
    if (!this.#question.complete(message.totalBytes)) return;
    const payload = this.#question.bytes(message.totalBytes);
    this.#step = message.step;
    if (message.type === MessageType.surveyHashes) this.#compare(message, payload);
    else if (message.type === MessageType.surveyEnd) this.#ended(message, payload);
  }

  #compare(message: ExchangeMessage, payload: Uint8Array): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const count = payload.length < 4 ? 0 : view.getUint32(0, true);
    if (count === 0 || payload.length !== 4 + count * (4 + HASH_BYTES))
      throw new ExchangeRefusal(`Hashes of ${count} pages in ${payload.length} bytes`);
    const pages = new Uint32Array(count);
    for (let at = 0; at < count; at++) pages[at] = view.getUint32(4 + 4 * at, true);
    const own = new Uint8Array(count * HASH_BYTES);
    this.#memory.guest.hasher.hashPages(pages, count, own);
    this.#differing.fill(0);
    const bits = new Uint8Array(Math.ceil(count / 8));
    const theirsAt = 4 + 4 * count;
    for (let at = 0; at < count; at++) {
      let same = true;
      for (let byte = 0; byte < HASH_BYTES && same; byte++)
        same = own[HASH_BYTES * at + byte] === payload[theirsAt + HASH_BYTES * at + byte];
      if (same) continue;
      bits[at >>> 3] = (bits[at >>> 3] ?? 0) | (1 << (at & 7));
      setBit(this.#differing, pages[at] ?? 0);
    }
    this.#answer(message, MessageType.surveyDiffer, bits);
  }

  #take(payload: Uint8Array): void {
    const { space } = this.#memory.guest;
    const { pageBytes, pageWords } = space;
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    for (let at = 0; at < payload.length;) {
      const page = view.getUint32(at, true);
      const whole = view.getUint32(at + 4, true) === PAGE_WHOLE;
      const end = at + PAGE_ENTRY_BYTES + (whole ? pageBytes : 0);
      if (end > payload.length || page >= space.pageLimit || !hasBit(this.#differing, page))
        throw new ExchangeRefusal(`Page ${page} was shipped, and was not found to differ`);
      const region = space.regionOf(page);
      const to = (page - region.firstPage) * pageWords;
      const words = region.words.subarray(to, to + pageWords);
      if (whole)
        new Uint8Array(words.buffer, words.byteOffset, pageBytes).set(
          payload.subarray(at + PAGE_ENTRY_BYTES, end),
        );
      else words.fill(0);
      setBit(this.#written, page);
      at = end;
    }
  }

  #ended(message: ExchangeMessage, payload: Uint8Array): void {
    if (payload.length !== SURVEY_NAME_BYTES)
      throw new ExchangeRefusal(`A survey's end of ${payload.length} bytes`);
    const { guest, set } = this.#memory;
    const pages = new Uint32Array(countBits(this.#written));
    guest.invalidate(pages, listBits(this.#written, pages));
    set.restart(readName(new DataView(payload.buffer, payload.byteOffset, payload.length), 0), this.#none);
    this.#answer(message, MessageType.surveyEnded, nothing);
  }

  #answer({ term, attempt, index, step }: ExchangeMessage, type: number, payload: Uint8Array): void {
    const { session } = this.#settings;
    this.#sender.begin({ type, term, attempt, index, session, step }, payload);
  }
}

function readName(view: DataView, at: number): RoundName {
  return {
    term: view.getUint32(at, true),
    attempt: view.getUint32(at + 4, true),
    index: readUint64(view, at + 8),
  };
}
