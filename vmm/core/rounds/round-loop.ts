/**
 * What one replica does with its guest, from one pass to the next: executes what is committed, makes it equal to
 * its partner's, releases what may leave, comes in again when it was left behind. No I/O and no clock.
 *
 * Guarantees. Only committed records are executed, in order, each once, and by a leader only once its term has
 * begun. In `vsmr` and `checkpoint` a leader's output of round k leaves after the partner has proven itself equal
 * at k, or after a record that takes the partner out has committed; a backup goes on behind round k by having
 * applied it or by having won a term. A guest that the log does not name executes nothing and is not VALID.
 */
import { decodeExecutingSet, setHolds } from '../falcon/executing-set.ts';
import { readUint64, RECORD_HEADER_BYTES, recordCount, recordType, writeUint64 } from '../falcon/record.ts';
import { RecordType } from '../falcon/record-type.ts';
import type { LogIndex, ReplicaId } from '../ids.ts';
import { Partners } from './partners.ts';
import { RoundMail, type RoundParts } from './round-parts.ts';
import { RoundRecordType } from './round-record.ts';
import type { ExchangeKind, ExchangeOutcome } from './round-report.ts';

const NONE = 0 as LogIndex;

export class RoundLoop {
  readonly partners: Partners;
  readonly #parts: RoundParts;
  readonly #word = new Uint8Array(8);
  #nowUs = 0;
  /** The executed round that is not yet known to be equal; the guest stands after it. */
  #open = NONE;
  #openKind: ExchangeKind = 'reconcile';
  /** This guest has to be made equal before it executes anything. */
  #outside: boolean;
  /** Since when the committed set has not named this guest, although it is inside; Infinity: it does. */
  #unnamedSinceUs = Infinity;
  /** Whom the exchange under way is to bring in. */
  #joining: { readonly replica: ReplicaId; readonly incarnation: number } | undefined;
  /** It was surveyed: the exchange that brings it in comes next. */
  #surveyed = false;
  /** Lockstep: memories were found different, and are not repaired yet. */
  #repair = false;
  #term = 0;
  #servedTerm = 0;
  #askedUs = -Infinity;
  #toldUs = -Infinity;
  #standsFor = -1;

  constructor(parts: RoundParts) {
    this.#parts = parts;
    this.partners = new Partners(parts);
    this.#outside = !parts.exchange.set.valid;
    this.#tellValid();
  }

  /** This guest waits to be made equal. */
  get outside(): boolean {
    return this.#outside;
  }

  /** An executed round is not yet known to be equal. */
  get reconciling(): boolean {
    return this.#open !== NONE;
  }

  /** Nothing that is committed is left to execute, to make equal, or to hand over. */
  get level(): boolean {
    const { guest, falcon, exchange } = this.#parts;
    const busy = exchange.leader.underWay && !exchange.leader.hashed;
    return (
      !this.#outside &&
      this.#open === NONE &&
      !busy &&
      guest.stands &&
      guest.appliedIndex === falcon.commitIndex
    );
  }

  /** Who is being made equal, to come in. */
  get joining(): ReplicaId | undefined {
    return this.#joining?.replica;
  }

  /** Lockstep: output follows vsmr until the memories are equal again. */
  get repairing(): boolean {
    return this.#repair;
  }

  /** When `pass` has something to do without an input. */
  get deadlineUs(): number {
    const { exchange, falcon, times } = this.#parts;
    const askUs = this.#outside ? this.#askedUs + times.askAgainUs : this.#toldUs + times.tellAgainUs;
    return Math.min(falcon.role === 'leader' ? Infinity : askUs, exchange.deadlineUs);
  }

  receive(from: ReplicaId, mail: RoundMail, bytes: Uint8Array, nowUs: number): void {
    this.#nowUs = nowUs;
    const { exchange } = this.#parts;
    if (mail === RoundMail.exchange) {
      this.#enterTerm();
      exchange.receive(from, bytes, this.#outside && this.#parts.guest.stands, nowUs);
      // What is applied is not VALID until it is proven, and nobody may hear otherwise.
      this.#tellValid();
      this.#say();
      return;
    }
    const value = readUint64(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0);
    if (mail === RoundMail.executed) this.partners.executed(from, value, nowUs);
    else if (mail === RoundMail.wanted) this.#wanted(from, value);
    else this.#lost(from, value);
  }

  /** Nothing more comes of that guest: what waits for it waits no longer. */
  #lost(from: ReplicaId, incarnation: number): void {
    const joining = this.#joining;
    if (joining?.replica === from && joining.incarnation === incarnation) this.#giveUpJoining();
    this.partners.lost(from, incarnation);
  }

  #wanted(from: ReplicaId, incarnation: number): void {
    const joining = this.#joining;
    if (joining?.replica === from) {
      if (joining.incarnation === incarnation) return;
      // Another guest: the one that was to come in is gone.
      this.#giveUpJoining();
    }
    // And so is the one that executed, though nobody may have said so.
    this.partners.replaced(from, incarnation);
    this.partners.wants(from, incarnation);
  }

  #giveUpJoining(): void {
    this.#parts.exchange.abandon();
    this.#joining = undefined;
    this.#surveyed = false;
  }

  peerGone(peer: ReplicaId): void {
    const { exchange } = this.#parts;
    this.partners.gone(peer);
    if (exchange.partner === peer) this.#giveUpJoining();
  }

  /** The log began anew behind `index`, a record that this guest may not have executed. */
  rebased(index: LogIndex): void {
    if (this.#parts.guest.appliedIndex < index) this.#leave();
  }

  /** One pass. True when there was something to do, so that another pass may find more. */
  pass(nowUs: number): boolean {
    const { falcon, guest, exchange } = this.#parts;
    this.#nowUs = nowUs;
    this.#enterTerm();
    exchange.tick(nowUs);
    let worked = this.#takeOutcome();
    if (guest.takeEnd()) {
      this.#roundEnded();
      worked = true;
    }
    worked = (this.#outside ? this.#ask() : this.#follow()) || worked;
    worked = this.#lead() || worked;
    worked = this.#say() || worked;
    this.#tellValid();
    const done = this.#outside ? falcon.commitIndex : Math.min(guest.appliedIndex, falcon.commitIndex);
    falcon.applied(done as LogIndex);
    return worked;
  }

  #enterTerm(): void {
    const { falcon, exchange } = this.#parts;
    exchange.enterTerm(falcon.term, falcon.leader, falcon.role === 'leader');
    if (this.#term !== falcon.term) this.#standsFor = -1;
    this.#term = falcon.term;
    if (falcon.role !== 'leader') {
      this.#joining = undefined;
      this.#surveyed = false;
    }
  }

  #tellValid(): void {
    const { falcon, exchange, incarnation } = this.#parts;
    falcon.setExecutor(incarnation, exchange.set.valid);
  }

  // Executing ----------------------------------------------------------------------------------------

  #roundEnded(): void {
    const { guest, mode } = this.#parts;
    if (mode !== 'lockstep')
      this.#openRound(guest.appliedIndex, mode === 'vsmr' ? 'reconcile' : 'checkpoint');
    this.#tellExecuted();
  }

  #openRound(index: LogIndex, kind: ExchangeKind): void {
    this.#open = index;
    this.#openKind = kind;
    this.#standsFor = -1;
  }

  #closeRound(): void {
    this.#open = NONE;
    this.#stand(-1, false);
  }

  #follow(): boolean {
    if (this.#open !== NONE && !this.#settleOpen()) return false;
    return this.#applyNext();
  }

  /** True when the guest need not stand for the open round any more. */
  #settleOpen(): boolean {
    const { falcon, exchange, guest } = this.#parts;
    if (falcon.role !== 'leader') {
      this.#stand(this.#open, false);
      return false;
    }
    if (!falcon.mayServe) return false;
    const { partner } = this.partners;
    if (partner === undefined) {
      exchange.leader.abandon();
      this.#closeRound();
      if (guest.serving) guest.releaseHeld();
      return true;
    }
    if (!exchange.leader.underWay && !this.partners.mustGo(partner)) {
      exchange.begin({ kind: this.#openKind, term: falcon.term, index: this.#open }, partner, this.#nowUs);
    }
    return false;
  }

  #applyNext(): boolean {
    const { falcon, guest, mode } = this.#parts;
    const index = (guest.appliedIndex + 1) as LogIndex;
    if (!guest.stands || index > falcon.commitIndex || !this.#mayMove()) return false;
    const type = recordType(falcon.log.memory, falcon.log.offsetAt(index));
    switch (type) {
      case RecordType.termStart:
      case RecordType.executingSet:
        return this.#applySet(index);
      case RoundRecordType.round:
        if (mode === 'checkpoint' && falcon.role !== 'leader') return this.#stand(guest.appliedIndex, true);
        this.#stand(-1, false);
        guest.execute(index, guest.serving && this.#mayReleaseAtOnce());
        return true;
      case RoundRecordType.verification:
        return this.#compare(index);
      case RoundRecordType.reconciliation:
        guest.passOver(index);
        this.#openRound(index, 'reconcile');
        return true;
      case RoundRecordType.guestReset:
      case RoundRecordType.guestOff:
        return this.#applyGuestEnd(index);
      default:
        guest.passOver(index);
        return true;
    }
  }

  /** An exchange for which this guest must stand, or a term that has not begun, holds it. */
  #mayMove(): boolean {
    const { falcon, exchange } = this.#parts;
    if (falcon.role === 'leader') {
      if (!falcon.mayServe || exchange.survey.wantsTurn) return false;
      return !exchange.leader.underWay || exchange.leader.hashed;
    }
    return this.#standsFor === -1 || exchange.backup.hashed || this.#parts.mode === 'checkpoint';
  }

  /** Lockstep: its cause is committed, and so in the history of every successor. Alone: there is no successor. */
  #mayReleaseAtOnce(): boolean {
    if (this.partners.partner === undefined) return true;
    return this.#parts.mode === 'lockstep' && !this.#repair;
  }

  #applyGuestEnd(index: LogIndex): boolean {
    const { falcon, guest, mode, world } = this.#parts;
    // A guest that does not execute gets the leader's memory as its reset has left it.
    if (mode === 'checkpoint' && falcon.role !== 'leader') guest.passOver(index);
    else guest.execute(index, false);
    world.guestEnded(index);
    return true;
  }

  #applySet(index: LogIndex): boolean {
    const { falcon, guest, self, incarnation } = this.#parts;
    const { log } = falcon;
    const at = log.offsetAt(index);
    const set = decodeExecutingSet(log.memory.view, at + RECORD_HEADER_BYTES, recordCount(log.memory, at));
    guest.passOver(index);
    if (!setHolds(set, self, incarnation)) this.#leave();
    return true;
  }

  /** Both stand after the same records: their memories must be equal. */
  #compare(index: LogIndex): boolean {
    const { falcon, guest, exchange } = this.#parts;
    guest.passOver(index);
    if (falcon.role !== 'leader') return this.#stand(index, false);
    const { partner } = this.partners;
    if (partner !== undefined && !exchange.leader.underWay && !this.partners.mustGo(partner))
      exchange.begin({ kind: 'compare', term: falcon.term, index }, partner, this.#nowUs);
    return true;
  }

  /** Always true, so that the next pass looks what came of it. */
  #stand(index: number, adopts: boolean): boolean {
    if (this.#standsFor === index) return false;
    this.#standsFor = index;
    this.#parts.exchange.stand(index === -1 ? undefined : { index, adopts }, this.#nowUs);
    return true;
  }

  #tellExecuted(): void {
    const { falcon, guest } = this.#parts;
    if (falcon.role === 'leader') return;
    this.#toldUs = this.#nowUs;
    this.#tellLeader(RoundMail.executed, guest.appliedIndex);
  }

  #tellLeader(mail: RoundMail, value: number): void {
    const { falcon, self, world } = this.#parts;
    const { leader } = falcon;
    if (leader === undefined || leader === self) return;
    writeUint64(new DataView(this.#word.buffer), 0, value);
    world.send(leader, mail, this.#word);
  }

  // Left behind --------------------------------------------------------------------------------------

  /** From now on this guest is nobody's successor until it is made equal. */
  #leave(): void {
    const { exchange, world, self, guest } = this.#parts;
    if (this.#outside) return;
    exchange.set.valid = false;
    this.#outside = true;
    this.#open = NONE;
    this.#repair = false;
    this.#standsFor = -1;
    this.#unnamedSinceUs = Infinity;
    exchange.abandon();
    exchange.backup.abandon();
    this.#tellValid();
    if (guest.serving) guest.endServing();
    world.event('left-behind', self, guest.appliedIndex);
  }

  /** Stands ready to be made equal, and says so. */
  #ask(): boolean {
    const { guest, incarnation, times } = this.#parts;
    if (!guest.stands) return false;
    const worked = this.#stand(guest.appliedIndex, true);
    if (this.#nowUs - this.#askedUs < times.askAgainUs) return worked;
    this.#askedUs = this.#nowUs;
    this.#tellLeader(RoundMail.wanted, incarnation);
    return worked;
  }

  /** Made equal, but never named: the record that was to say so did not come about. */
  #watchOwnName(): void {
    const { falcon, self, incarnation, times } = this.#parts;
    const unnamed =
      !this.#outside &&
      falcon.role === 'follower' &&
      falcon.leader !== undefined &&
      !setHolds(falcon.executingSetCommitted, self, incarnation);
    if (!unnamed) this.#unnamedSinceUs = Infinity;
    else this.#unnamedSinceUs = Math.min(this.#unnamedSinceUs, this.#nowUs);
    if (this.#nowUs - this.#unnamedSinceUs > times.leftBehindUs && this.#parts.guest.stands) this.#leave();
  }

  // How an exchange ended ----------------------------------------------------------------------------

  #takeOutcome(): boolean {
    const { exchange, world } = this.#parts;
    const led = exchange.leader.takeOutcome();
    if (led !== undefined) {
      world.exchanged(true, led);
      this.#ledOutcome(led);
    }
    const followed = exchange.backup.takeOutcome();
    if (followed !== undefined) {
      world.exchanged(false, followed);
      this.#followedOutcome(followed);
    }
    exchange.settleUp();
    return led !== undefined || followed !== undefined;
  }

  #ledOutcome(outcome: ExchangeOutcome): void {
    const { guest, exchange, world } = this.#parts;
    const joining = this.#joining;
    const partner = joining?.replica ?? exchange.lastPartner;
    this.#joining = undefined;
    const faulty = outcome.type === 'mismatch' || outcome.type === 'refused';
    if (faulty && partner !== undefined) this.partners.fault(partner);
    if (outcome.type === 'different') this.#repair = true;
    if (outcome.type !== 'equal') return;
    if (joining !== undefined) {
      world.event('state-sent', joining.replica, outcome.report.index);
      const index = this.partners.add(joining.replica, joining.incarnation, this.#nowUs);
      if (index !== 0) world.event('protected', joining.replica, index);
    } else if (this.#open === outcome.report.index) {
      if (partner !== undefined) this.partners.executed(partner, this.#open, this.#nowUs);
      this.#closeRound();
      this.#repair = false;
      if (guest.serving) guest.releaseHeld();
      if (partner !== undefined && this.#parts.scans === true) this.#scan(partner);
    }
  }

  /** All memory once more, whatever the sets say. */
  #scan(partner: ReplicaId): void {
    const { falcon, guest, exchange } = this.#parts;
    exchange.set.lose();
    exchange.begin({ kind: 'compare', term: falcon.term, index: guest.appliedIndex }, partner, this.#nowUs);
  }

  #followedOutcome(outcome: ExchangeOutcome): void {
    const { guest, world, self } = this.#parts;
    this.#standsFor = -1;
    if (outcome.type === 'mismatch') this.#leave();
    if (outcome.type !== 'equal' || outcome.report.kind === 'compare') return;
    this.#open = NONE;
    if (this.#outside) world.event('state-loaded', self, outcome.report.index);
    this.#outside = false;
    this.#unnamedSinceUs = Infinity;
    guest.adopted(outcome.report.index as LogIndex);
    this.#tellExecuted();
    const scans = this.#parts.scans === true && outcome.report.kind !== 'adopt';
    if (scans) this.#stand(outcome.report.index, false);
  }

  // Leading ------------------------------------------------------------------------------------------

  #lead(): boolean {
    const { falcon, guest, world, exchange, times, self } = this.#parts;
    this.#watchOwnName();
    if (!falcon.mayServe) {
      if (!guest.serving) return false;
      guest.endServing();
      world.event('serving-ended', self, falcon.term);
      return true;
    }
    if (this.#servedTerm !== falcon.term) {
      this.#servedTerm = falcon.term;
      this.partners.forget(this.#nowUs);
    }
    if (this.#watchPartner()) return true;
    if (!guest.serving) {
      if (!this.level) return false;
      guest.beginServing();
      world.event('serving', self, guest.appliedIndex);
      return true;
    }
    if (this.#joining !== undefined && this.#nowUs - exchange.progressUs > times.stallUs) {
      world.event('transfer-given-up', this.#joining.replica, guest.appliedIndex);
      this.#giveUpJoining();
      return true;
    }
    if (this.#moveSurvey()) return true;
    if (this.#runsNewest && !this.partners.someWait && !this.#surveyed)
      return world.proposeAhead(this.#nowUs);
    if (!this.level || exchange.leader.underWay || falcon.log.lastIndex !== falcon.commitIndex) return false;
    return this.#beginJoin() || world.propose(this.#nowUs);
  }

  /** The guest has to stand soon. */
  get wantsStand(): boolean {
    return this.#parts.exchange.survey.wantsTurn || this.#surveyed;
  }

  #moveSurvey(): boolean {
    const { exchange, guest } = this.#parts;
    const { survey } = exchange;
    if (this.#joining === undefined || this.#surveyed) return false;
    if (survey.takeDeclined()) {
      this.#joining = undefined;
      return true;
    }
    this.#surveyed = survey.takeDone();
    if (this.#surveyed) return true;
    if (!survey.wantsTurn || !guest.stands || this.#open !== NONE) return false;
    survey.turn(this.#nowUs);
    return true;
  }

  /** The guest runs the newest round of the log. */
  get #runsNewest(): boolean {
    const { falcon, guest } = this.#parts;
    return !this.#outside && !guest.stands && falcon.log.lastIndex === guest.appliedIndex + 1;
  }

  /** A partner that is gone, stands still or is at fault must not hold up the service. */
  #watchPartner(): boolean {
    const { exchange, times, world } = this.#parts;
    const { partner } = this.partners;
    if (partner === undefined) return false;
    const stalls = exchange.partner === partner && this.#nowUs - exchange.progressUs > times.stallUs;
    if (!this.partners.mustGo(partner) && !stalls && !this.partners.lags(partner, this.#nowUs)) return false;
    const index = this.partners.remove(partner);
    if (index === 0) return false;
    world.event('degraded', partner, index);
    // A comparison is given up; an open round stays open until the record has committed.
    exchange.abandon();
    this.partners.fault(partner);
    return true;
  }

  #beginJoin(): boolean {
    const { exchange, falcon, world } = this.#parts;
    if (this.#joining !== undefined) return this.#surveyed && this.#beginAdopting(this.#joining.replica);
    if (!world.transferable) return false;
    const wanting = this.partners.takeWanting();
    if (wanting === undefined) return false;
    const { replica, incarnation } = wanting;
    const { partner } = this.partners;
    // One beside this one; and a guest of another incarnation leaves before the new one comes in.
    if (partner !== undefined && partner !== replica) return false;
    if (partner === replica && !this.partners.names(replica, incarnation)) {
      this.partners.fault(replica);
      return true;
    }
    this.#joining = wanting;
    if (partner === replica) return this.#beginAdopting(replica);
    exchange.beginSurvey(falcon.term, replica, this.#nowUs);
    return true;
  }

  #beginAdopting(replica: ReplicaId): boolean {
    const { exchange, falcon, guest } = this.#parts;
    this.#surveyed = false;
    exchange.begin({ kind: 'adopt', term: falcon.term, index: guest.appliedIndex }, replica, this.#nowUs);
    return true;
  }

  // Saying -------------------------------------------------------------------------------------------

  #say(): boolean {
    const { exchange, world, falcon, times } = this.#parts;
    let said = false;
    for (let to = exchange.addressee; to !== undefined; to = exchange.addressee) {
      const message = exchange.peek();
      if (message === undefined || !world.send(to, RoundMail.exchange, message)) break;
      exchange.sent();
      said = true;
    }
    const executes = !this.#outside && falcon.role !== 'leader';
    if (executes && this.#nowUs - this.#toldUs >= times.tellAgainUs) this.#tellExecuted();
    return said;
  }
}
