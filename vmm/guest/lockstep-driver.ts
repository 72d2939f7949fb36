/**
 * Moves a guest in lockstep: both execute the same rounds to the same virtual instants, and are equal by construction.
 * Guarantees: a round begins only while this replica may serve; all that is in the log but not executed here is the
 * running round and one behind it, which is agreed on meanwhile; whether both guests are equal is looked at after each
 * finished request.
 */
import { readUint64, recordCount, recordType, writeUint64 } from '../core/falcon/record.ts';
import type { LogIndex, ReplicaId } from '../core/ids.ts';
import { Rate } from '../core/rate.ts';
import { Pacemaker } from '../core/rounds/pacemaker.ts';
import { RoundRecordType } from '../core/rounds/round-record.ts';
import { MailKind } from '../io/mail.ts';
import { stopReason } from '../io/qemu/layout.ts';
import type { TransportPeer } from '../io/transport/transport.ts';
import { PortLostError } from '../io/qemu/port.ts';
import { StateReceiver } from '../transfer/state-receiver.ts';
import { StateSender } from '../transfer/state-sender.ts';
import { FingerprintCheck } from './fingerprint-check.ts';
import type { DriverFigures, DriverSurroundings, DriverTransfer, GuestDriver } from './guest-driver.ts';
import type { GuestExecutor } from './guest-executor.ts';
import { proposeRound } from './round-proposal.ts';
import { Verifier } from './verifier.ts';

/** Rounds that the leader may be ahead of an executing backup. */
const leadMax = 16;
/** A backup that made no progress for this long while the leader waits for it leaves the executing set. */
const backupStallUs = 2_000_000;
/** Under load, when the guest is never idle, memories are compared every so many rounds. */
const verificationIntervalRounds = 256;
const stateWantedIntervalUs = 250_000;
/** A state transfer that stands still for this long is given up: the leader's guest waits for it. */
const transferStallUs = 3_000_000;
/** A guest that the log no longer names for this long was left behind, and asks for state again. */
const leftBehindUs = 1_000_000;
const nothing = new Uint8Array(0);

export class LockstepDriver implements GuestDriver {
  readonly executor: GuestExecutor;
  readonly #around: DriverSurroundings;
  readonly #verifier: Verifier;
  readonly #fingerprints: FingerprintCheck;
  readonly #pacemaker = new Pacemaker();
  readonly #rate = new Rate();
  readonly #executed = new Map<ReplicaId, { index: number; sinceUs: number }>();
  /** What these said last may still be read, but nothing can be expected of them. */
  readonly #gone = new Set<ReplicaId>();
  readonly #stateWanted = new Map<ReplicaId, number>();
  /** Whose guests were found unequal to this one: a bug, or bad memory. They serve nobody any more. */
  readonly #diverged = new Set<ReplicaId>();
  readonly #word = new Uint8Array(8);
  #receiver: StateReceiver | undefined;
  #sender: StateSender | undefined;
  /** Of the guest that the transfer under way goes to. */
  #receiverIncarnation = 0;
  #transferBeganUs = 0;
  /** In a transfer: since when the guest stands for it. */
  #standsSinceUs = 0;
  #transferProgressUs = 0;
  /** Since when the committed executing set has lacked this replica; Infinity: it does not. */
  #outsideSinceUs = Infinity;
  /** The comparison under way: it is void in any other term, and once its partner is gone or executes no longer. */
  #comparison: { readonly term: number; readonly partner: ReplicaId; readonly sinceUs: number } | undefined;
  /** The next round waits for nothing but its time. */
  #waitsForPace = false;
  #off = false;
  #stateAskedUs = -Infinity;
  #rounds = 0;
  #roundsSinceVerification = 0;
  #framesSinceVerification = 0;

  /** `valid`: the new VM's first guest; any other waits for state. */
  constructor(around: DriverSurroundings, executor: GuestExecutor, valid: boolean) {
    const { port } = executor;
    this.#around = around;
    this.executor = executor;
    this.#fingerprints = new FingerprintCheck(port);
    this.#verifier = new Verifier(
      port,
      (union, hashes) => this.#fingerprints.learn(union, hashes),
      (partner, text) => {
        this.#diverged.add(partner);
        around.event('divergence', text);
      },
    );
    if (!valid) this.#receiver = new StateReceiver(port);
    around.falcon.setExecutor(around.incarnation, valid);
  }

  get outside(): boolean {
    return this.#receiver !== undefined;
  }

  get #nowUs(): number {
    return this.#around.falcon.state.nowUs;
  }

  peerGone(peer: ReplicaId): void {
    if (this.#sender?.peer.id === peer) this.#sender = undefined;
    // Whoever waits for its bitmap or its root waits in vain.
    if (this.#partner()?.id === peer || this.#around.falcon.leader === peer) this.#abandonChecks();
    this.#stateWanted.delete(peer);
    this.#executed.delete(peer);
    this.#gone.add(peer);
  }

  peerConnected(peer: ReplicaId): void {
    this.#gone.delete(peer);
  }

  /** Both go on executing, since both stand after the same records then. */
  handOver(to: ReplicaId): string | undefined {
    if (this.#sender !== undefined) return 'state is on its way to a replica';
    const { falcon } = this.#around;
    return falcon.transferTo(to, falcon.executingSet);
  }

  /** The log lost touch with the leader's and began anew: this guest lacks rounds, and needs state again. */
  logRebased(index: LogIndex): void {
    if (this.#receiver !== undefined) return;
    this.#around.event('rebased', `The log begins anew behind record ${index}: the guest needs state`, {
      index,
    });
    this.#giveUpGuest();
  }

  waitUs(nowUs: number): number {
    const { virtualNs, idle } = this.executor;
    return this.#waitsForPace ? this.#pacemaker.waitNs(nowUs * 1000, virtualNs, idle) / 1000 : Infinity;
  }

  figures(nowUs: number): DriverFigures {
    const verifier = this.#verifier;
    const fingerprints = this.#fingerprints;
    return {
      rounds: this.#rounds,
      roundsPerSecond: this.#rate.perSecond(nowUs),
      verifications: verifier.verifications + fingerprints.equal,
      verifiedPages: verifier.pages + fingerprints.pages,
      mismatches: verifier.mismatches,
      divergentPages: verifier.divergentPages,
      exchange: null,
      transfer: this.#transfer(nowUs),
    };
  }

  #transfer(nowUs: number): DriverTransfer | null {
    const sender = this.#sender;
    if (sender === undefined) return null;
    return {
      to: sender.peer.id,
      sentBytes: sender.sentBytes,
      totalBytes: this.#around.guestMemoryBytes,
      guestStands: sender.index !== undefined,
      forMs: (nowUs - this.#transferBeganUs) / 1000,
    };
  }

  // Mail ---------------------------------------------------------------------------------------------

  receive(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    switch (kind) {
      case MailKind.executed:
        if (!this.#gone.has(peer.id))
          this.#executed.set(peer.id, { index: readUint64(view, 0), sinceUs: this.#nowUs });
        break;
      case MailKind.bitmap:
      case MailKind.root:
      case MailKind.hashesWanted:
      case MailKind.hashes:
        this.#verifier.take(peer, kind, bytes);
        break;
      case MailKind.fingerprint:
        this.#fingerprints.peerTold(readUint64(view, 0), bytes.subarray(8));
        break;
      case MailKind.stateWanted:
        if (!this.#gone.has(peer.id)) this.#takeStateWanted(peer.id, readUint64(view, 0));
        break;
      case MailKind.guestLost:
        this.#guestLost(peer.id, readUint64(view, 0));
        break;
      case MailKind.stateLoaded:
        this.#stateArrived(peer.id, readUint64(view, 0));
        break;
      default:
        this.#takeState(peer, kind, bytes);
    }
  }

  /** Another guest than the one that is being sent to: that one is gone. */
  #takeStateWanted(replica: ReplicaId, incarnation: number): void {
    this.#stateWanted.set(replica, incarnation);
    if (this.#sender?.peer.id === replica && incarnation !== this.#receiverIncarnation)
      this.#sender = undefined;
  }

  #guestLost(replica: ReplicaId, incarnation: number): void {
    if (this.#stateWanted.get(replica) === incarnation) this.#stateWanted.delete(replica);
    if (this.#sender?.peer.id === replica && incarnation === this.#receiverIncarnation)
      this.#sender = undefined;
    const named = this.#around.falcon.executingSet.some(
      (one) => one.replica === replica && one.incarnation === incarnation,
    );
    if (named) this.#executed.delete(replica);
  }

  #takeState(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    const loaded = this.#receiver?.take(kind, bytes);
    if (loaded === undefined) return;
    this.#receiver = undefined;
    this.#outsideSinceUs = Infinity;
    this.#around.noteGuestReady(); // Only a guest that is ready is transferred.
    this.executor.stateLoaded(loaded.index, loaded.virtualNs);
    this.#around.falcon.setExecutor(this.#around.incarnation, true);
    writeUint64(new DataView(this.#word.buffer), 0, loaded.index);
    peer.send(MailKind.stateLoaded, this.#word);
    this.#around.event('state-loaded', `State of record ${loaded.index} loaded`, { index: loaded.index });
  }

  // The guest ----------------------------------------------------------------------------------------

  pass(nowUs: number): boolean {
    const { executor } = this;
    const { falcon } = this.#around;
    if (this.#receiver !== undefined) {
      executor.standAside();
      falcon.applied(falcon.commitIndex);
      this.#askForState(nowUs);
      return false;
    }
    let worked = false;
    this.#leftBehind(executor, nowUs);
    if (executor.takeEnd()) {
      this.#rounds++;
      this.#rate.count(nowUs);
      this.#roundsSinceVerification++;
      this.#tellExecuted(executor);
      worked = true;
    }
    worked = this.#compare() || worked;
    worked = this.#applyCommitted(executor) || worked;
    worked = this.#lead(executor, nowUs) || worked;
    falcon.applied(executor.appliedIndex);
    // Behind the running round at most one more is agreed on.
    const waiting = falcon.log.lastIndex - executor.appliedIndex;
    return executor.heedInput(executor.serving && waiting <= (executor.stands ? 0 : 1)) || worked;
  }

  /** A backup that was taken out of the executing set begins anew, with another guest. */
  #leftBehind(executor: GuestExecutor, nowUs: number): void {
    const { falcon } = this.#around;
    const outside =
      falcon.role === 'follower' &&
      falcon.leader !== undefined &&
      !falcon.executingSetCommitted.some((member) => member.replica === this.#around.self);
    if (!outside) {
      this.#outsideSinceUs = Infinity;
      executor.standBy();
      return;
    }
    this.#outsideSinceUs = Math.min(this.#outsideSinceUs, nowUs);
    if (nowUs - this.#outsideSinceUs < leftBehindUs) return;
    // It may have much to execute that nobody needs, and keeps what is in no saved state: a fresh one takes its place.
    this.#around.event('left-behind', 'The log names this guest no longer: another one asks for state');
    this.#giveUpGuest();
  }

  /** Its QEMU ends, and the agent starts another one. */
  #giveUpGuest(): never {
    this.executor.port.quit();
    throw new PortLostError('is given up: the log goes on without this guest');
  }

  /** Goes on with a comparison, unless nobody answers any more. */
  #compare(): boolean {
    const verifier = this.#verifier;
    if (!verifier.busy) return false;
    const { term, partner } = this.#comparison ?? {};
    if (term === this.#around.falcon.term && partner === this.#partner()?.id) return verifier.step();
    this.#abandonChecks();
    return true;
  }

  #abandonChecks(): void {
    this.#verifier.abandon();
    this.#fingerprints.abandon();
  }

  #askForState(nowUs: number): void {
    const { leader } = this.#around.falcon;
    if (leader === undefined || nowUs - this.#stateAskedUs < stateWantedIntervalUs) return;
    this.#stateAskedUs = nowUs;
    writeUint64(new DataView(this.#word.buffer), 0, this.#around.incarnation);
    this.#around.transport.peer(leader)?.send(MailKind.stateWanted, this.#word);
  }

  #tellExecuted(executor: GuestExecutor): void {
    const { leader } = this.#around.falcon;
    if (leader === undefined || leader === this.#around.self) return;
    writeUint64(new DataView(this.#word.buffer), 0, executor.appliedIndex);
    this.#around.transport.peer(leader)?.send(MailKind.executed, this.#word);
  }

  #applyCommitted(executor: GuestExecutor): boolean {
    const verifier = this.#verifier;
    if (verifier.busy || this.#sender?.index !== undefined) return false;
    const { falcon } = this.#around;
    const index = executor.nextCommitted();
    if (index === 0) return false;
    const type = recordType(falcon.log.memory, falcon.log.offsetAt(index));
    if (type === RoundRecordType.verification) this.#takeFingerprint(executor, index);
    else if (type === RoundRecordType.comparison) this.#verify(executor, verifier, index);
    else {
      executor.execute(index, executor.serving);
      this.#noteGuestEnd(type, index);
    }
    return true;
  }

  /** That the guest has reset itself or ended takes effect here, by a committed record. */
  #noteGuestEnd(type: number, index: LogIndex): void {
    if (type === RoundRecordType.guestReset)
      this.#around.event('guest-reset', 'The guest has reset itself', { index });
    if (type !== RoundRecordType.guestOff) return;
    const { memory } = this.#around.falcon.log;
    const reason = recordCount(memory, this.#around.falcon.log.offsetAt(index));
    this.#off = true;
    this.#around.guestOff(reason === stopReason.shutdown ? 'powered off' : 'crashed', index);
  }

  /** Leader: the guest has ended; what becomes of it is agreed on first. */
  #proposeEnd(ended: number): boolean {
    if (this.#off) return false;
    const type = ended === stopReason.reset ? RoundRecordType.guestReset : RoundRecordType.guestOff;
    return typeof this.#around.falcon.propose(type, ended, nothing) === 'number';
  }

  /** What the guest has changed since the last one, as one hash; the leader's goes on at once. */
  #takeFingerprint(executor: GuestExecutor, index: LogIndex): void {
    executor.passOver(index);
    this.#roundsSinceVerification = 0;
    this.#framesSinceVerification = 0;
    const partner = this.#partner();
    const fingerprint = this.#fingerprints.take();
    this.#sender?.addDirty(executor.port.dirtyBitmap);
    if (partner === undefined) return;
    this.#verifier.addDirty(executor.port.dirtyBitmap);
    if (this.#around.falcon.role === 'leader') {
      this.#fingerprints.own(index, fingerprint);
      return;
    }
    const message = new Uint8Array(8 + fingerprint.hash.length);
    writeUint64(new DataView(message.buffer), 0, index);
    message.set(fingerprint.hash, 8);
    partner.send(MailKind.fingerprint, message);
  }

  /**
   * Both sides stand after the same records: their memories must be equal. A comparison that an earlier leader asked for
   * is passed over: that one is gone, or has given its own part in it up.
   */
  #verify(executor: GuestExecutor, verifier: Verifier, index: LogIndex): void {
    const { falcon } = this.#around;
    const partner = falcon.log.termAt(index) === falcon.term ? this.#partner() : undefined;
    executor.passOver(index);
    this.#fingerprints.abandon();
    if (partner === undefined) return;
    this.#comparison = { term: falcon.term, partner: partner.id, sinceUs: this.#nowUs };
    verifier.begin(index, partner, falcon.role === 'leader');
    this.#sender?.addDirty(executor.port.dirtyBitmap);
  }

  /** The other executing member, as the log has it, as long as it can be reached. */
  #partner(): TransportPeer | undefined {
    for (const { replica } of this.#around.falcon.executingSetCommitted) {
      if (replica === this.#around.self) continue;
      return this.#gone.has(replica) ? undefined : this.#around.transport.peer(replica);
    }
    return undefined;
  }

  // Leading ------------------------------------------------------------------------------------------

  #lead(executor: GuestExecutor, nowUs: number): boolean {
    const { falcon } = this.#around;
    const level = executor.stands && executor.appliedIndex === falcon.commitIndex;
    this.#waitsForPace = false;
    if (!falcon.mayServe) {
      this.#sender = undefined;
      this.#diverged.clear();
      if (executor.serving) {
        executor.endServing();
        this.#around.event('serving-ended', `Term ${falcon.term} is led by another replica`, {
          term: falcon.term,
        });
        return true;
      }
      return false;
    }
    if (!executor.serving) {
      if (!level) return false;
      executor.beginServing();
      // Whoever executes with it from the beginning, after a handover, is level, or shows that it is not.
      for (const { replica } of falcon.executingSet)
        this.#executed.set(replica, { index: executor.appliedIndex, sinceUs: nowUs });
      this.#pacemaker.align(nowUs * 1000, executor.virtualNs);
      this.#around.serves(executor.appliedIndex);
      return true;
    }
    const sent = this.#sendState();
    if (this.#sender?.index !== undefined) return sent;
    this.#watchPartner(nowUs);
    if (this.#verifier.busy) return sent;
    if (!level) return this.#proposeAhead(executor, nowUs) || sent;
    if (falcon.log.lastIndex !== falcon.commitIndex) return sent;
    if (executor.ended !== undefined) return this.#proposeEnd(executor.ended) || sent;
    return this.#moveTransfer(executor) || this.#proposeNext(executor, nowUs) || sent;
  }

  /** A part of the transfer under way. From the sender's index on the guest stands until the peer has loaded. */
  #sendState(): boolean {
    const sender = this.#sender;
    if (sender === undefined) return false;
    if (sender.pump()) {
      this.#transferProgressUs = this.#nowUs;
      return true;
    }
    if (sender.wantsNextPass || this.#nowUs - this.#transferProgressUs < transferStallUs) return false;
    this.#around.event('transfer-given-up', `${this.#around.name(sender.peer.id)} takes no state for 3 s`);
    this.#sender = undefined;
    return true;
  }

  /** The guest stands and all of the log is executed: what a transfer begins, and goes on with, then. */
  #moveTransfer(executor: GuestExecutor): boolean {
    const sender = this.#sender;
    if (sender === undefined) return this.#beginTransfer(executor);
    if (!sender.wantsNextPass) return false;
    sender.nextPass(executor.appliedIndex);
    this.#standsSinceUs = this.#nowUs;
    return true;
  }

  #beginTransfer(executor: GuestExecutor): boolean {
    if (!this.#around.guestReady) return false;
    for (const [replica, incarnation] of this.#stateWanted) {
      const peer = this.#around.transport.peer(replica);
      if (this.#executesInLog(replica)) continue; // It leaves the set first.
      this.#stateWanted.delete(replica);
      if (peer === undefined) continue;
      this.#sender = new StateSender(peer, executor.port);
      this.#receiverIncarnation = incarnation;
      this.#transferBeganUs = this.#nowUs;
      this.#transferProgressUs = this.#nowUs;
      return true;
    }
    return false;
  }

  #executesInLog(replica: ReplicaId): boolean {
    return this.#around.falcon.executingSet.some((member) => member.replica === replica);
  }

  #stateArrived(replica: ReplicaId, index: number): void {
    const sender = this.#sender;
    if (sender?.peer.id !== replica || sender.index !== index) return;
    this.#sender = undefined;
    this.#stateWanted.delete(replica);
    const pauseMs = Math.round((this.#nowUs - this.#standsSinceUs) / 1000);
    const tookMs = Math.round((this.#nowUs - this.#transferBeganUs) / 1000);
    this.#around.event(
      'state-sent',
      `State of record ${index} sent to ${this.#around.name(replica)}: ${(sender.sentBytes / 1e6).toFixed(1)} MB in ${tookMs} ms, for ${pauseMs} ms of which the guest stood`,
      { index, bytes: sender.sentBytes, tookMs, pauseMs },
    );
    this.#addExecutor(replica);
  }

  #addExecutor(replica: ReplicaId): void {
    const { falcon } = this.#around;
    this.#executed.set(replica, { index: this.executor.appliedIndex, sinceUs: this.#nowUs });
    const result = falcon.proposeExecutingSet([
      ...falcon.executingSet,
      { replica, incarnation: this.#receiverIncarnation },
    ]);
    if (typeof result === 'string') {
      this.#around.event(
        'set-refused',
        `${this.#around.name(replica)} not added to the executing set: ${result}`,
      );
      return;
    }
    this.#around.event('protected', `${this.#around.name(replica)} executes from record ${result}`, {
      index: result,
    });
  }

  /** A backup that is gone or stands still must not hold up the service: it leaves the executing set. */
  #watchPartner(nowUs: number): void {
    const { falcon } = this.#around;
    const { executor } = this;
    for (const { replica } of falcon.executingSet) {
      if (replica === this.#around.self) continue;
      const progress = this.#executed.get(replica);
      const lags = progress !== undefined && progress.index + leadMax < executor.appliedIndex;
      const stalls =
        (lags && nowUs - progress.sinceUs > backupStallUs) ||
        (this.#verifier.busy && nowUs - (this.#comparison?.sinceUs ?? nowUs) > backupStallUs);
      const diverged = this.#diverged.has(replica);
      // Whoever asks for state has no guest that executes.
      if (progress !== undefined && !stalls && !diverged && !this.#stateWanted.has(replica)) continue;
      const result = falcon.proposeExecutingSet(
        falcon.executingSet.filter((member) => member.replica !== replica),
      );
      if (typeof result === 'number') {
        this.#around.event(
          'degraded',
          `${this.#around.name(replica)} no longer executes: ${diverged ? "its guest differs from this one, and gets this one's state" : 'it has ended or stands still'}`,
          { index: result },
        );
        this.#diverged.delete(replica);
        this.#abandonChecks();
      }
      return;
    }
  }

  #proposeNext(executor: GuestExecutor, nowUs: number): boolean {
    if (this.#leadsTooFar(executor)) return false;
    const framesWait = executor.inputWaits;
    const check = this.#checkDue(executor, framesWait);
    if (check !== undefined) return typeof this.#around.falcon.propose(check, 0, nothing) === 'number';
    const sliceNs = this.#pacemaker.sliceNs(nowUs * 1000, executor.virtualNs, executor.idle, framesWait);
    this.#waitsForPace = sliceNs === 0;
    return sliceNs !== 0 && this.#proposeRound(executor, executor.virtualNs + sliceNs);
  }

  /** While a round runs, frames that came meanwhile are agreed on already: the next round begins at its end. */
  #proposeAhead(executor: GuestExecutor, nowUs: number): boolean {
    const { log } = this.#around.falcon;
    const { runningUntilNs } = executor;
    if (executor.stands || log.lastIndex !== executor.appliedIndex + 1 || !executor.inputWaits) return false;
    // What needs a standing guest comes first.
    const sender = this.#sender;
    const transferDue = sender === undefined ? this.#stateWanted.size > 0 : sender.wantsNextPass;
    if (transferDue || this.#checkDue(executor, true) !== undefined) return false;
    if (this.#leadsTooFar(executor)) return false;
    const sliceNs = this.#pacemaker.sliceNs(nowUs * 1000, runningUntilNs, false, true);
    return sliceNs !== 0 && this.#proposeRound(executor, runningUntilNs + sliceNs);
  }

  #leadsTooFar(executor: GuestExecutor): boolean {
    const partner = this.#partner();
    return (
      partner !== undefined && executor.appliedIndex - (this.#executed.get(partner.id)?.index ?? 0) > leadMax
    );
  }

  /** After each finished request, and now and then when requests never end; and whatever looked different then. */
  #checkDue(executor: GuestExecutor, framesWait: boolean): number | undefined {
    if (this.#partner() === undefined) return undefined;
    if (this.#fingerprints.differ) return RoundRecordType.comparison;
    const due =
      this.#roundsSinceVerification >= verificationIntervalRounds ||
      (this.#framesSinceVerification > 0 && executor.idle && !framesWait);
    return due ? RoundRecordType.verification : undefined;
  }

  #proposeRound(executor: GuestExecutor, untilNs: number): boolean {
    const extent = { untilNs, realUsMax: 0, untilQuiet: false };
    const frames = proposeRound(this.#around.falcon, executor, extent);
    if (frames === -1) return false;
    this.#framesSinceVerification += frames;
    return true;
  }
}
