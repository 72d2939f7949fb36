/**
 * The leader's side of a round's exchange: asks, step by step, and says again what is not answered. Guarantees:
 * `equal` is told only when the backup has proven by its root that its memory is this guest's as it stands; a
 * resume voids the attempt, and whatever still arrives of it is dropped by its number.
 */
import { countBits, listBits } from '../../../merkle/bitmap.ts';
import { ExchangeChoice } from '../../../merkle/exchange-choice.ts';
import { HASH_BYTES } from '../../../merkle/page-hasher.ts';
import { MerkleRefusal } from '../../../merkle/refusal.ts';
import { sameRoot } from '../../../merkle/traversal.ts';
import { writeUint64 } from '../falcon/record.ts';
import { invariant } from '../invariant.ts';
import { MessageType, type ExchangeMessage } from './exchange-message.ts';
import { holdsMoreThan, type ExchangeMemory, type ExchangeSettings } from './exchange-memory.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import { PartAssembly } from './part-assembly.ts';
import { PartSender } from './part-sender.ts';
import { RoundTally, type ExchangeKind, type ExchangeOutcome, type RoundReport } from './round-report.ts';
import { StagingSource } from './staging.ts';

/** What is to be made equal, or compared. */
export interface ExchangeAim {
  readonly kind: ExchangeKind;
  readonly term: number;
  /** The record after which this guest stands. */
  readonly index: number;
}

export const kindNumbers: Readonly<Record<ExchangeKind, number>> = {
  compare: 1,
  reconcile: 2,
  adopt: 3,
  checkpoint: 4,
};

type Phase = 'idle' | 'opening' | 'comparing' | 'shipping' | 'ending' | 'confirming';
const OPEN_HEADER_BYTES = 24;
/** Of the first compare: level of its frontier, root. */
export const COMPARE_HEADER_BYTES = 4 + HASH_BYTES;
export const FLAG_WHOLE = 1;
export const FLAG_UNPROVEN = 1;

export class ExchangeLeader {
  readonly #memory: ExchangeMemory;
  readonly #settings: ExchangeSettings;
  readonly #sender: PartSender;
  readonly #answer: PartAssembly;
  readonly #staging: StagingSource;
  /** Where the exchange of hashes begins, from the divergence of the last rounds. */
  readonly #choice: ExchangeChoice;
  #phase: Phase = 'idle';
  #aim: ExchangeAim = { kind: 'reconcile', term: 0, index: 0 };
  #attempt = 0;
  #attemptsBefore = 0;
  #session = 0;
  #step = 0;
  #state: Uint8Array = new Uint8Array(0);
  /** The state is saved while the backup works on the opening: it is still to be asked for. */
  #saveDue = false;
  /** It is not taken yet. */
  #stateDue = false;
  /** Of the backup with which the common versions are. */
  #commonSession = 0;
  /** Both are equal, and what was shipped is not kept yet. */
  #keepDue = false;
  #wantedPages = 0;
  #pages = new Uint32Array(0);
  #pageCount = 0;
  #hashed = false;
  #tally = new RoundTally('reconcile', 0, 0);
  #outcome: ExchangeOutcome | undefined;
  #sentBytesBefore = 0;
  #messagesBefore = 0;
  #resendAtUs = Infinity;
  #nowUs = 0;
  /** When something last came of it: an answer, or more of the staging sent. */
  progressUs = 0;
  beganUs = 0;

  constructor(memory: ExchangeMemory, settings: ExchangeSettings) {
    this.#memory = memory;
    this.#settings = settings;
    this.#sender = new PartSender(settings.crc32c, settings.partBytes);
    this.#answer = new PartAssembly(settings.partBytes, settings.stagingBytesMax);
    this.#staging = new StagingSource(memory.common);
    this.#choice = new ExchangeChoice(settings.link, memory.tree.fanOut);
  }

  get underWay(): boolean {
    return this.#phase !== 'idle';
  }

  /** A `compare` needs the guest no longer: it may go on. */
  get hashed(): boolean {
    return this.#hashed;
  }

  /** In the exchange under way. */
  get sentBytes(): number {
    return this.#sender.sentBytes - this.#sentBytesBefore;
  }

  get report(): RoundReport {
    return this.#tally.report;
  }

  /** Once per exchange: how it ended. */
  takeOutcome(): ExchangeOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    return outcome;
  }

  /** What nobody has to wait for is done; the guest must not go on before. */
  settleUp(): void {
    if (!this.#keepDue) return;
    this.#keepDue = false;
    this.#memory.common.keep(this.#memory.tree, this.#pages, this.#pageCount, this.#state);
  }

  /** The guest stands after `aim.index`, and goes on standing until the outcome (`compare`: until `hashed`). */
  begin(aim: ExchangeAim, nowUs: number): void {
    invariant(this.#phase === 'idle', 'one exchange at a time');
    const { guest, set } = this.#memory;
    this.#nowUs = nowUs;
    this.progressUs = nowUs;
    this.beganUs = nowUs;
    this.#aim = aim;
    this.#outcome = undefined;
    this.#attemptsBefore = this.#attempt;
    this.#wantedPages = 0;
    this.#sentBytesBefore = this.#sender.sentBytes;
    this.#messagesBefore = this.#sender.sentMessages;
    this.#tally = new RoundTally(aim.kind, aim.index, nowUs);
    this.#stateDue = aim.kind !== 'compare';
    guest.collectInto(set.since);
    this.#saveDue = this.#stateDue;
    this.#open();
  }

  /** The guest goes on, or its partner is gone: the attempt is void. */
  abandon(): void {
    if (this.#phase === 'idle') return;
    this.#memory.set.abandonComparison();
    this.#rest();
  }

  tick(nowUs: number): void {
    this.#nowUs = nowUs;
    if (this.#phase === 'idle' || !this.#sender.exhausted || this.#phase === 'shipping') return;
    if (nowUs >= this.#resendAtUs) this.#sender.again();
  }

  /** When `tick` has something to do next. */
  get deadlineUs(): number {
    return this.#phase === 'idle' ? Infinity : this.#resendAtUs;
  }

  /** The next message for the partner, the same until `sent`; undefined: nothing to say now. */
  peek(): Uint8Array | undefined {
    if (this.#phase === 'idle') return undefined;
    const message = this.#sender.peek();
    if (message !== undefined || this.#phase !== 'shipping') return message;
    this.#end();
    return this.#sender.peek();
  }

  sent(): void {
    this.#sender.sent();
    if (this.#saveDue && this.#sender.exhausted) this.#beginSave();
    if (this.#phase === 'shipping') this.progressUs = this.#nowUs;
    this.#resendAtUs = this.#nowUs + this.#settings.resendUs;
  }

  #beginSave(): void {
    this.#saveDue = false;
    this.#memory.guest.beginSave();
  }

  #saveState(): void {
    if (this.#saveDue) this.#beginSave();
    this.#stateDue = false;
    this.#state = this.#memory.guest.saveState();
    this.#tally.note({ stateBytes: this.#state.length });
  }

  receive(message: ExchangeMessage, nowUs: number): void {
    this.#nowUs = nowUs;
    const { term, index } = this.#aim;
    if (this.#phase === 'idle' || message.term !== term || message.index !== index) return;
    if (message.attempt !== this.#attempt || message.step !== this.#step) return;
    const otherProcess = this.#session !== 0 && message.session !== this.#session;
    if (otherProcess && message.type !== MessageType.unknown) return;
    this.progressUs = nowUs;
    try {
      const payload = this.#wholeAnswer(message);
      if (payload !== undefined) this.#take(message, payload);
    } catch (error) {
      if (!(error instanceof ExchangeRefusal || error instanceof MerkleRefusal)) throw error;
      this.#finish({ type: 'refused', text: error.message });
    }
  }

  /** The answer's bytes once all its parts are here. */
  #wholeAnswer(message: ExchangeMessage): Uint8Array | undefined {
    if (message.totalBytes === message.payload.length && message.part === 0) return message.payload;
    this.#answer.add(message.part, message.payload);
    return this.#answer.complete(message.totalBytes) ? this.#answer.bytes(message.totalBytes) : undefined;
  }

  #take(message: ExchangeMessage, payload: Uint8Array): void {
    switch (message.type) {
      case MessageType.union:
        if (this.#phase === 'opening') this.#unionCame(message.session, payload);
        break;
      case MessageType.differ:
        if (this.#phase === 'comparing') this.#differCame(payload);
        break;
      case MessageType.applied:
        if (this.#phase === 'ending') this.#appliedCame(payload);
        break;
      case MessageType.incomplete:
        if (this.#phase === 'ending') this.#ship(this.#step - 1);
        break;
      case MessageType.wanted:
        if (this.#phase === 'ending') this.#wantedCame(payload);
        break;
      case MessageType.confirmed:
        if (this.#phase === 'confirming') this.#equal();
        break;
      case MessageType.unknown:
        this.#unknownCame();
        break;
      case MessageType.declined:
        if (this.#aim.kind === 'adopt') this.#finish({ type: 'void' });
        break;
      case MessageType.refused:
        throw new ExchangeRefusal(new TextDecoder().decode(payload));
      default: // Not an answer.
    }
  }

  // The steps ----------------------------------------------------------------------------------------

  #open(): void {
    const { set } = this.#memory;
    set.abandonComparison();
    const own = this.#memory.ownSet();
    const whole = !set.intact;
    this.#attempt++;
    this.#session = 0;
    this.#hashed = false;
    this.#phase = 'opening';
    this.#tally.note({ attempts: this.#attempt - this.#attemptsBefore, dirtyPages: countBits(own) });
    const payload = new Uint8Array(OPEN_HEADER_BYTES + own.byteLength);
    const view = new DataView(payload.buffer);
    view.setUint32(0, kindNumbers[this.#aim.kind], true);
    view.setUint32(4, whole ? FLAG_WHOLE : 0, true);
    view.setUint32(8, set.last.term, true);
    view.setUint32(12, set.last.attempt, true);
    writeUint64(view, 16, set.last.index);
    payload.set(new Uint8Array(own.buffer, own.byteOffset, own.byteLength), OPEN_HEADER_BYTES);
    this.#ask(MessageType.open, 0, payload);
  }

  #unionCame(session: number, payload: Uint8Array): void {
    const memory = this.#memory;
    const whole = payload.length === 4;
    const union = whole ? memory.all : memory.bitmapFrom(payload, 4);
    if (holdsMoreThan(memory.ownSet(), union))
      throw new ExchangeRefusal('The union lacks pages of the bitmap that it was made from');
    if (!whole && !memory.set.intact) throw new ExchangeRefusal('Not all pages are compared, as was asked');
    this.#session = session;
    if (whole || session !== this.#commonSession) memory.common.clear();
    this.#commonSession = session;
    memory.union.set(union);
    memory.hashUnion();
    this.#hashed = true;
    this.#tally.spent('openUs', this.#nowUs);
    this.#tally.note({ unionPages: memory.tree.leafCount, wholeMemory: whole });
    if (this.#aim.kind === 'checkpoint' && !whole) {
      this.#pages = new Uint32Array(memory.tree.leafCount);
      this.#pageCount = listBits(memory.union, this.#pages);
      this.#ship(1);
      return;
    }
    this.#phase = 'comparing';
    this.#pageCount = 0;
    const level = this.#choice.levelFor(memory.tree.leafCount);
    memory.traversal.begin(memory.tree, level);
    const first = new Uint8Array(COMPARE_HEADER_BYTES + memory.traversal.hashBytes);
    new DataView(first.buffer).setUint32(0, level, true);
    first.set(memory.tree.root(), 4);
    if (!memory.traversal.finished) memory.traversal.writeHashes(first.subarray(COMPARE_HEADER_BYTES));
    this.#ask(MessageType.compare, 1, first);
  }

  #differCame(payload: Uint8Array): void {
    const { traversal, tree } = this.#memory;
    if (payload.length > 0) {
      traversal.advance(payload);
      if (!traversal.finished) {
        const hashes = new Uint8Array(traversal.hashBytes);
        traversal.writeHashes(hashes);
        this.#ask(MessageType.compare, this.#step + 1, hashes);
        return;
      }
      this.#pages = traversal.divergentPages;
      this.#pageCount = traversal.divergentCount;
      this.#choice.observe(tree.leafCount, traversal.divergentLeaves, traversal.divergentCount);
    }
    this.#tally.spent('compareUs', this.#nowUs);
    this.#tally.note({ divergentPages: this.#pageCount });
    if (this.#aim.kind !== 'compare') this.#ship(this.#step + 1);
    else if (this.#pageCount === 0) this.#equal();
    else this.#finish({ type: 'different', pages: [...this.#pages.subarray(0, this.#pageCount)] });
  }

  #ship(step: number): void {
    if (this.#stateDue) this.#saveState();
    this.#phase = 'shipping';
    const { term, index } = this.#aim;
    const numbers = { term, round: index, attempt: this.#attempt };
    this.#staging.begin(numbers, this.#pages, this.#pageCount, this.#state);
    this.#tally.note({ divergentPages: this.#pageCount });
    this.#step = step;
    this.#answer.begin();
    this.#sender.beginStream(this.#heading(MessageType.stage), this.#staging);
  }

  #end(): void {
    this.#phase = 'ending';
    this.#tally.spent('shipUs', this.#nowUs);
    this.#tally.note({ stagedBytes: this.#staging.bytes, stagedAs: this.#staging.bytesAs });
    const payload = new Uint8Array(8 + HASH_BYTES);
    writeUint64(new DataView(payload.buffer), 0, this.#staging.bytes);
    payload.set(this.#memory.tree.root(), 8);
    this.#ask(MessageType.end, this.#step + 1, payload);
  }

  /** One more step: what was a delta from something that is not there goes whole. */
  #wantedCame(payload: Uint8Array): void {
    this.#wantedPages += this.#staging.forgetWanted(payload);
    this.#tally.note({ wantedPages: this.#wantedPages });
    this.#ship(this.#step + 1);
  }

  #appliedCame(payload: Uint8Array): void {
    const memory = this.#memory;
    const flags = new DataView(payload.buffer, payload.byteOffset, payload.length).getUint32(0, true);
    const root = payload.subarray(4, 4 + HASH_BYTES);
    if ((flags & FLAG_UNPROVEN) !== 0) {
      // Loading wrote pages outside the union: this side hashes those, too.
      memory.uniteUnion(memory.bitmapFrom(payload, 4 + HASH_BYTES));
      memory.hashUnion();
    }
    if (!sameRoot(root, memory.tree.root())) {
      this.#finish({ type: 'mismatch', text: 'After applying, the backup is not equal to the leader' });
    } else if ((flags & FLAG_UNPROVEN) !== 0) {
      this.#phase = 'confirming';
      this.#ask(MessageType.confirm, this.#step + 1, new Uint8Array(0));
    } else this.#equal();
  }

  #equal(): void {
    const { set, union } = this.#memory;
    const { kind, term, index } = this.#aim;
    set.settle({ term, index, attempt: this.#attempt }, union);
    this.#keepDue = kind !== 'compare';
    this.#finish({ type: 'equal' });
  }

  /** The backup runs as another process, or has gone on: what it knew of this attempt is lost. */
  #unknownCame(): void {
    if (this.#aim.kind === 'compare' && this.#hashed) this.#finish({ type: 'void' });
    else this.#open();
  }

  #finish(
    ending:
      | { readonly type: 'equal' | 'void' }
      | { readonly type: 'different'; readonly pages: readonly number[] }
      | { readonly type: 'mismatch' | 'refused'; readonly text: string },
  ): void {
    this.#memory.set.abandonComparison();
    if (this.#aim.kind !== 'compare') this.#tally.spent('applyUs', this.#nowUs);
    this.#tally.note({
      messages: this.#sender.sentMessages - this.#messagesBefore,
      sentBytes: this.#sender.sentBytes - this.#sentBytesBefore,
    });
    this.#outcome = { ...ending, report: this.#tally.report };
    this.#rest();
  }

  #rest(): void {
    this.#phase = 'idle';
    this.#hashed = false;
    this.#resendAtUs = Infinity;
    this.#sender.stop();
  }

  #ask(type: number, step: number, payload: Uint8Array): void {
    this.#step = step;
    this.#answer.begin();
    this.#sender.begin(this.#heading(type), payload);
  }

  #heading(type: number) {
    const { term, index } = this.#aim;
    return { type, term, index, attempt: this.#attempt, session: this.#session, step: this.#step };
  }
}
