/**
 * The backup's side of a round's exchange: answers, and in the end applies. Guarantees: nothing is written into the
 * guest before the staging is whole, checked and known to make sense; from then on applying is finished before
 * anything else; VALID is cleared before it and set again only when the roots are equal; what arrives of an attempt
 * that a resume or a newer attempt has voided is dropped.
 */
import { countBits, listBits } from '../../../merkle/bitmap.ts';
import { HASH_BYTES } from '../../../merkle/page-hasher.ts';
import { MerkleRefusal } from '../../../merkle/refusal.ts';
import { sameRoot } from '../../../merkle/traversal.ts';
import { readUint64 } from '../falcon/record.ts';
import { COMPARE_HEADER_BYTES, FLAG_UNPROVEN, FLAG_WHOLE, kindNumbers } from './exchange-leader.ts';
import { MessageType, type ExchangeMessage } from './exchange-message.ts';
import type { ExchangeMemory, ExchangeSettings } from './exchange-memory.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import { PartAssembly } from './part-assembly.ts';
import { PartSender } from './part-sender.ts';
import { RoundTally, type ExchangeKind, type ExchangeOutcome } from './round-report.ts';
import { Staging } from './staging.ts';
import { sameRound, type RoundName } from './unreconciled-set.ts';

/** Where this guest stands, and what it is ready for there. */
export interface Standing {
  /** The record after which the guest stands. */
  readonly index: number;
  /** It may be made equal to a leader that stands anywhere. */
  readonly adopts: boolean;
}

type Phase = 'asked' | 'comparing' | 'unproven' | 'applied' | 'over';
const OPEN_HEADER_BYTES = 24;

interface Attempt {
  readonly term: number;
  readonly attempt: number;
  readonly index: number;
  kind: ExchangeKind;
  phase: Phase;
  /** The step answered last; -1: none. */
  step: number;
  /** Why all of this attempt is refused. */
  refusal: Uint8Array | undefined;
}

export class ExchangeBackup {
  readonly #memory: ExchangeMemory;
  readonly #settings: ExchangeSettings;
  readonly #sender: PartSender;
  readonly #question: PartAssembly;
  readonly #stage: PartAssembly;
  readonly #staging: Staging;
  #term = 0;
  #attempt: Attempt | undefined;
  /** The opening of the newest attempt, until the guest stands where it can be answered. */
  #opening: Uint8Array | undefined;
  #questionStep = -1;
  #stageStep = -1;
  /** The pages that differ, ascending: exactly these the leader stages. */
  #asked = new Uint32Array(0);
  #standing: Standing | undefined;
  #outcome: ExchangeOutcome | undefined;
  #hashed = false;
  /** The union is known, and the tree over it is not built yet. */
  #hashDue = false;
  /** Both are equal, and what was shipped is not kept yet. */
  #keepDue = false;
  #tally = new RoundTally('reconcile', 0, 0);
  #nowUs = 0;

  constructor(memory: ExchangeMemory, settings: ExchangeSettings) {
    this.#memory = memory;
    this.#settings = settings;
    this.#sender = new PartSender(settings.crc32c, settings.partBytes);
    this.#question = new PartAssembly(settings.partBytes, settings.stagingBytesMax);
    this.#stage = new PartAssembly(settings.partBytes, settings.stagingBytesMax);
    this.#staging = new Staging(memory.guest, memory.common, settings.stagingBytesMax);
  }

  /** From now on only this term's leader is answered. */
  enterTerm(term: number): void {
    if (term === this.#term) return;
    this.#term = term;
    this.abandon();
    this.#attempt = undefined;
  }

  /** The guest stands; an exchange for this place may begin. `undefined`: it does not. */
  stand(standing: Standing | undefined, nowUs: number): void {
    this.#nowUs = nowUs;
    this.#standing = standing;
    this.#hashed = false;
    const attempt = this.#attempt;
    if (attempt !== undefined && this.#opening !== undefined)
      this.#guarded(attempt, () => this.#answerOpening(attempt));
  }

  /** A `compare` needs this guest no longer: it may go on. */
  get hashed(): boolean {
    return this.#hashed;
  }

  /** The guest goes on without the leader's word: nothing more is applied of what the leader is about to send. */
  abandon(): void {
    this.#standing = undefined;
    this.#opening = undefined;
    this.#hashDue = false;
    this.#sender.stop();
    const attempt = this.#attempt;
    if (attempt === undefined || attempt.phase === 'applied' || attempt.phase === 'over') return;
    this.#memory.set.abandonComparison();
    attempt.phase = 'over';
  }

  takeOutcome(): ExchangeOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    return outcome;
  }

  peek(): Uint8Array | undefined {
    return this.#sender.peek();
  }

  sent(): void {
    this.#sender.sent();
    if (this.#hashDue && this.#sender.exhausted) this.#hash();
    if (this.#sender.exhausted) this.settleUp();
  }

  /** What nobody has to wait for is done; the guest must not go on before. */
  settleUp(): void {
    if (!this.#keepDue) return;
    this.#keepDue = false;
    this.#staging.keep(this.#memory.tree);
  }

  /** At the same time as the leader, which has the union by now. */
  #hash(): void {
    this.#hashDue = false;
    this.#memory.tree.build(this.#memory.union);
    this.#hashed = this.#attempt?.kind === 'compare';
  }

  /** A message of the leader of its term; whoever calls has checked who sent it. */
  receive(message: ExchangeMessage, nowUs: number): void {
    this.#nowUs = nowUs;
    if (message.term !== this.#term) return;
    const attempt = this.#attempt;
    if (attempt !== undefined && message.attempt < attempt.attempt) return;
    if (attempt?.refusal !== undefined && message.attempt === attempt.attempt) {
      if (message.type !== MessageType.stage)
        this.#say(message, MessageType.refused, message.step, attempt.refusal);
    } else if (message.type === MessageType.open) {
      this.#openCame(message);
    } else if (attempt !== undefined && this.#knows(attempt, message)) {
      this.#guarded(attempt, () => this.#take(attempt, message));
    } else if (message.type !== MessageType.stage) {
      this.#say(message, MessageType.unknown, message.step, NOTHING);
    }
  }

  #knows(attempt: Attempt, message: ExchangeMessage): boolean {
    const begun = attempt.phase !== 'asked' && attempt.phase !== 'over';
    return begun && message.attempt === attempt.attempt && message.session === this.#settings.session;
  }

  #guarded(attempt: Attempt, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof ExchangeRefusal || error instanceof MerkleRefusal)) throw error;
      this.#memory.set.abandonComparison();
      attempt.refusal = new TextEncoder().encode(error.message);
      attempt.phase = 'over';
      this.#say(attempt, MessageType.refused, attempt.step + 1, attempt.refusal);
      this.#opening = undefined;
      this.#finish({ type: 'refused', text: error.message });
    }
  }

  // Opening ------------------------------------------------------------------------------------------

  #openCame(message: ExchangeMessage): void {
    const known = this.#attempt;
    if (known?.attempt === message.attempt) {
      // Said again: the answer was lost, or this guest does not stand there yet.
      if (known.step === 0 && known.phase === 'comparing') this.#sender.again();
      if (known.phase !== 'asked' || this.#opening !== undefined) return;
    } else {
      if (known !== undefined && known.phase !== 'applied') this.#memory.set.abandonComparison();
      this.#sender.stop();
      this.#question.begin();
      this.#questionStep = 0;
      this.#opening = undefined;
    }
    const { term, index } = message;
    const attempt: Attempt =
      known?.attempt === message.attempt
        ? known
        : {
            term,
            index,
            attempt: message.attempt,
            kind: 'reconcile',
            phase: 'asked',
            step: -1,
            refusal: undefined,
          };
    this.#attempt = attempt;
    this.#guarded(attempt, () => {
      this.#question.add(message.part, message.payload);
      if (!this.#question.complete(message.totalBytes)) return;
      this.#opening = this.#question.bytes(message.totalBytes);
      this.#answerOpening(attempt);
    });
  }

  #answerOpening(attempt: Attempt): void {
    const opening = this.#opening;
    const standing = this.#standing;
    if (opening === undefined) return;
    if (opening.length < OPEN_HEADER_BYTES)
      throw new ExchangeRefusal(`An opening of ${opening.length} bytes`);
    const view = new DataView(opening.buffer, opening.byteOffset, opening.byteLength);
    attempt.kind = kindOf(view.getUint32(0, true));
    if (attempt.kind === 'adopt' && standing?.adopts !== true) {
      // Asked for no longer, or the round still runs: whoever leads must not wait for it.
      this.#say(attempt, MessageType.declined, 0, NOTHING);
      attempt.phase = 'over';
      this.#opening = undefined;
      return;
    }
    if (standing === undefined) return;
    const here = standing.index === attempt.index && attempt.kind !== 'checkpoint';
    if (!here && (!standing.adopts || attempt.kind === 'compare')) return;
    this.#opening = undefined;
    const theirLast = {
      term: view.getUint32(8, true),
      attempt: view.getUint32(12, true),
      index: readUint64(view, 16),
    };
    this.#begin(attempt, (view.getUint32(4, true) & FLAG_WHOLE) !== 0, theirLast, opening);
  }

  #begin(attempt: Attempt, theirsLost: boolean, theirLast: RoundName, opening: Uint8Array): void {
    const memory = this.#memory;
    const { set, guest } = memory;
    const theirs = memory.bitmapFrom(opening, OPEN_HEADER_BYTES);
    this.#hashDue = false;
    this.#tally = new RoundTally(attempt.kind, attempt.index, this.#nowUs);
    guest.collectInto(set.since);
    const whole = theirsLost || !set.intact || !sameRound(theirLast, set.last);
    memory.union.set(whole ? memory.all : theirs);
    if (whole) memory.common.clear();
    this.#asked = new Uint32Array(0);
    // A checkpoint is not compared with what lies here: only its result is hashed.
    memory.fixUnion();
    const unionPages = countBits(memory.union);
    if (attempt.kind === 'checkpoint' && !whole) {
      this.#asked = new Uint32Array(unionPages);
      listBits(memory.union, this.#asked);
    } else this.#hashDue = true;
    this.#tally.note({ unionPages, wholeMemory: whole });
    attempt.phase = 'comparing';
    this.#stageStep = -1;
    const answer = new Uint8Array(whole ? 4 : 4 + memory.union.byteLength);
    if (!whole) answer.set(new Uint8Array(memory.union.buffer), 4);
    this.#answer(attempt, 0, MessageType.union, answer);
  }

  // Steps --------------------------------------------------------------------------------------------

  #take(attempt: Attempt, message: ExchangeMessage): void {
    if (message.type === MessageType.stage) {
      this.#stageCame(attempt, message);
      return;
    }
    if (message.step === attempt.step && this.#sender.exhausted) {
      this.#sender.again();
      return;
    }
    if (message.step <= attempt.step) return;
    if (this.#questionStep !== message.step) {
      this.#question.begin();
      this.#questionStep = message.step;
    }
    this.#question.add(message.part, message.payload);
    if (!this.#question.complete(message.totalBytes)) return;
    const payload = this.#question.bytes(message.totalBytes);
    if (message.type === MessageType.compare) this.#compareCame(attempt, message.step, payload);
    else if (message.type === MessageType.end) this.#endCame(attempt, message.step, payload);
    else if (message.type === MessageType.confirm) this.#confirmCame(attempt, message.step);
  }

  #compareCame(attempt: Attempt, step: number, payload: Uint8Array): void {
    const { traversal, tree } = this.#memory;
    if (attempt.phase !== 'comparing' || step !== attempt.step + 1) return;
    if (this.#hashDue) this.#hash();
    const first = step === 1;
    if (first && payload.length < COMPARE_HEADER_BYTES)
      throw new ExchangeRefusal(`A first comparison of ${payload.length} bytes`);
    if (first && sameRoot(payload.subarray(4, COMPARE_HEADER_BYTES), tree.root())) {
      this.#answer(attempt, step, MessageType.differ, NOTHING);
      if (attempt.kind === 'compare') this.#settle(attempt);
      return;
    }
    if (first) traversal.begin(tree, new DataView(payload.buffer, payload.byteOffset).getUint32(0, true));
    this.#requireOpenTraversal();
    const answer = new Uint8Array(traversal.answerBytes);
    traversal.compare(first ? payload.subarray(COMPARE_HEADER_BYTES) : payload, answer);
    traversal.advance(answer);
    if (traversal.finished) this.#asked = traversal.divergentPages.slice(0, traversal.divergentCount);
    this.#answer(attempt, step, MessageType.differ, answer);
    if (!traversal.finished || attempt.kind !== 'compare') return;
    attempt.phase = 'applied';
    this.#memory.set.abandonComparison();
    const pages = [...traversal.divergentPages.subarray(0, traversal.divergentCount)];
    this.#finish({ type: 'different', pages });
  }

  #requireOpenTraversal(): void {
    if (this.#memory.traversal.finished) throw new ExchangeRefusal('Hashes came after all was compared');
  }

  #stageCame(attempt: Attempt, message: ExchangeMessage): void {
    if (attempt.phase !== 'comparing' || attempt.kind === 'compare' || message.step <= attempt.step) return;
    if (message.step < this.#stageStep) return;
    if (message.step > this.#stageStep) {
      this.#stage.begin();
      this.#stageStep = message.step;
    }
    this.#stage.add(message.part, message.payload);
  }

  #endCame(attempt: Attempt, step: number, payload: Uint8Array): void {
    if (attempt.phase !== 'comparing' || attempt.kind === 'compare' || payload.length !== 8 + HASH_BYTES)
      return;
    const bytes = readUint64(new DataView(payload.buffer, payload.byteOffset, payload.length), 0);
    if (this.#stageStep !== step - 1 || !this.#stage.complete(bytes)) {
      // Not an answer that ends the step: the same end comes again behind what was missing.
      this.#questionStep = -1;
      this.#say(attempt, MessageType.incomplete, step, NOTHING);
      return;
    }
    const numbers = { term: attempt.term, round: attempt.index, attempt: attempt.attempt };
    const wanted = this.#staging.read(this.#stage.bytes(bytes), numbers, this.#asked);
    if (wanted !== undefined) {
      this.#answer(attempt, step, MessageType.wanted, wanted);
      return;
    }
    this.#apply(attempt, step, payload.slice(8));
  }

  /** Irrevocable from its first line on. */
  #apply(attempt: Attempt, step: number, leaderRoot: Uint8Array): void {
    const memory = this.#memory;
    const { set, guest, tree } = memory;
    set.valid = false;
    this.#staging.apply();
    guest.collectInto(set.since);
    const beyond = memory.wroteBeyondUnion();
    tree.build(memory.union);
    if (!sameRoot(tree.root(), leaderRoot)) {
      attempt.phase = 'applied';
      this.#answer(attempt, step, MessageType.applied, this.#proof(0));
      this.#mismatch();
    } else if (beyond) {
      memory.hashUnion();
      attempt.phase = 'unproven';
      this.#answer(attempt, step, MessageType.applied, this.#proof(FLAG_UNPROVEN));
    } else {
      // What loading wrote lies in the union and was hashed with it.
      set.beginComparison(memory.union);
      this.#answer(attempt, step, MessageType.applied, this.#proof(0));
      this.#settle(attempt);
    }
  }

  /** Nothing is known of this guest any more, but that it is not what the leader's is. */
  #mismatch(): void {
    this.#memory.set.abandonComparison();
    this.#memory.set.lose();
    this.#finish({ type: 'mismatch', text: 'After applying, this guest is not equal to the leader' });
  }

  #proof(flags: number): Uint8Array {
    const { tree, union } = this.#memory;
    const unproven = (flags & FLAG_UNPROVEN) !== 0;
    const proof = new Uint8Array(4 + HASH_BYTES + (unproven ? union.byteLength : 0));
    new DataView(proof.buffer).setUint32(0, flags, true);
    proof.set(tree.root(), 4);
    if (unproven) proof.set(new Uint8Array(union.buffer), 4 + HASH_BYTES);
    return proof;
  }

  #confirmCame(attempt: Attempt, step: number): void {
    if (attempt.phase !== 'unproven') return;
    this.#answer(attempt, step, MessageType.confirmed, NOTHING);
    this.#settle(attempt);
  }

  #settle(attempt: Attempt): void {
    const { set, union } = this.#memory;
    set.settle({ term: attempt.term, attempt: attempt.attempt, index: attempt.index }, union);
    if (attempt.kind !== 'compare') {
      set.valid = true;
      this.#keepDue = true;
    }
    attempt.phase = 'applied';
    this.#finish({ type: 'equal' });
  }

  #finish(
    ending:
      | { readonly type: 'equal' }
      | { readonly type: 'different'; readonly pages: readonly number[] }
      | { readonly type: 'mismatch' | 'refused'; readonly text: string },
  ): void {
    this.#standing = undefined;
    this.#outcome = { ...ending, report: this.#tally.report };
  }

  #answer(attempt: Attempt, step: number, type: number, payload: Uint8Array): void {
    attempt.step = step;
    this.#say(attempt, type, step, payload);
  }

  #say(to: RoundName, type: number, step: number, payload: Uint8Array): void {
    const { term, attempt, index } = to;
    this.#sender.begin({ type, term, attempt, index, session: this.#settings.session, step }, payload);
  }
}

const NOTHING: Uint8Array = new Uint8Array(0);

function kindOf(number: number): ExchangeKind {
  for (const [kind, known] of Object.entries(kindNumbers)) if (known === number) return kind as ExchangeKind;
  throw new ExchangeRefusal(`An exchange of kind ${number} is not known here`);
}
