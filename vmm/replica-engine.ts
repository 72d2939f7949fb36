/**
 * One replica's hot path, in the agent's worker thread: consensus, rounds, state transfer and verification in one
 * loop over polled memory. Each pass takes what came in, decides, and carries out; nothing here waits.
 *
 * Invariants: the guest is run by committed records only; a round begins only while this replica may serve; all that
 * is in the log but not executed here is the running round and one behind it, which is agreed on meanwhile.
 */
import { ConsensusShell } from './consensus-shell.ts';
import { refusalText } from './core/falcon/control-refusal.ts';
import { recordCount, readUint64, recordType, writeUint64 } from './core/falcon/record.ts';
import type { LogIndex, ReplicaId } from './core/ids.ts';
import { invariant } from './core/invariant.ts';
import { Rate } from './core/rate.ts';
import { Pacemaker } from './core/rounds/pacemaker.ts';
import {
  frameBytesInRound,
  ROUND_HEADER_BYTES,
  RoundRecordType,
  writeFrame,
  writeRoundHeader,
} from './core/rounds/round-record.ts';
import type { EngineEvent, EngineStatus } from './engine-protocol.ts';
import { GuestExecutor } from './guest-executor.ts';
import { MailKind } from './io/mail.ts';
import { stopReason } from './io/qemu/layout.ts';
import { PortLostError, type GuestPort } from './io/qemu/port.ts';
import { FingerprintCheck } from './fingerprint-check.ts';
import { Tap } from './io/tap.ts';
import type { Transport, TransportPeer } from './io/transport/transport.ts';
import { StateReceiver } from './transfer/state-receiver.ts';
import { StateSender } from './transfer/state-sender.ts';
import { Verifier } from './verifier.ts';
import { replicaFiles, type VmPlan } from './vm-plan.ts';

/** Payload of one round's record at most: bounds how long a batch takes to travel. */
const batchBytesMax = 256 * 1024;
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
const messagesPerPassMax = 64;
/** QEMU processes that one agent process may start: an incarnation is never used twice. */
const guestsPerProcessMax = 4096;

export interface EngineFace {
  /** The guest has ended by itself, and stays so. */
  guestOff(how: 'powered off' | 'crashed'): void;
  event(event: EngineEvent): void;
}

export class ReplicaEngine {
  readonly consensus: ConsensusShell;
  readonly #plan: VmPlan;
  readonly #self: ReplicaId;
  readonly #transport: Transport;
  readonly #face: EngineFace;
  readonly #pacemaker = new Pacemaker();
  readonly #executed = new Map<ReplicaId, { index: number; sinceUs: number }>();
  /** What these said last may still be read, but nothing can be expected of them. */
  readonly #gone = new Set<ReplicaId>();
  readonly #stateWanted = new Map<ReplicaId, number>();
  readonly #word = new Uint8Array(8);
  readonly #refused = new Set<string>();
  #executor: GuestExecutor | undefined;
  #verifier: Verifier | undefined;
  #fingerprints: FingerprintCheck | undefined;
  #receiver: StateReceiver | undefined;
  #sender: StateSender | undefined;
  /** Of the guest that the transfer under way goes to. */
  #receiverIncarnation = 0;
  #transferBeganUs = 0;
  /** In a transfer: since when the guest stands for it. */
  #standsSinceUs = 0;
  #transferProgressUs = 0;
  /** While it serves: since when nobody else has executed; Infinity: somebody does. */
  #aloneSinceUs = Infinity;
  /** Who led last, other than this replica. */
  #formerLeader: ReplicaId | undefined;
  readonly #roundRate = new Rate();
  /** Since when the committed executing set has lacked this replica; Infinity: it does not. */
  #outsideSinceUs = Infinity;
  /** Term and time in which the comparison under way began; it is void in any other term. */
  #comparison = { term: 0, sinceUs: 0 };
  readonly #first: boolean;
  readonly #executes: boolean;
  readonly #processNumber: number;
  /** Of the newest guest here: see `Executor` in core/falcon/executing-set.ts. */
  #incarnation = 0;
  /** The next round waits for nothing but its time. */
  #waitsForPace = false;
  #off: 'powered off' | 'crashed' | undefined;
  #guestReady = false;
  #guestLost = false;
  #stateAskedUs = -Infinity;
  #rounds = 0;
  #roundsSinceVerification = 0;
  #framesSinceVerification = 0;

  constructor(plan: VmPlan, self: ReplicaId, transport: Transport, face: EngineFace) {
    this.#plan = plan;
    this.#self = self;
    this.#transport = transport;
    this.#face = face;
    const name = plan.replicas.find((replica) => replica.id === self)?.name ?? '';
    const first = plan.replicas.find((replica) => replica.executes)?.id ?? self;
    this.#first = first === self;
    this.#executes = plan.replicas.some((replica) => replica.id === self && replica.executes);
    const { logFolder, hardStateFile } = replicaFiles(plan.name, name);
    this.consensus = new ConsensusShell(
      {
        self,
        voters: plan.replicas.map((replica) => replica.id),
        firstExecutor: first,
        durability: plan.durability,
        clusterId: BigInt(plan.clusterId),
        folder: logFolder,
        hardStateFile,
      },
      transport,
    );
    this.#processNumber = this.consensus.processNumber;
    this.#guestReady = plan.guest.readyMarker === null;
  }

  /** This process is the replica's first: it has no part in anything yet. */
  get isNew(): boolean {
    return this.#processNumber === 1;
  }

  get leader(): ReplicaId | undefined {
    return this.consensus.falcon.leader;
  }

  /** Readable when the disk has finished something; -1: never. */
  get diskFd(): number {
    return this.consensus.storage.eventFd;
  }

  diskRang(): void {
    this.consensus.storage.drain();
  }

  /** Finishes what the disk was given. */
  close(): void {
    this.consensus.storage.close();
  }

  get guestLost(): boolean {
    return this.#guestLost;
  }

  /** This replica's guest: the new VM's first one is fresh and VALID, any other waits for state. */
  attachGuest(port: GuestPort, tapFd: number): void {
    const { falcon } = this.consensus;
    port.welcome();
    const base = (this.#processNumber - 1) * guestsPerProcessMax;
    this.#incarnation = Math.max(base, this.#incarnation) + 1;
    invariant(this.#incarnation <= base + guestsPerProcessMax, 'an incarnation is never used twice');
    const valid = this.#first && this.#incarnation === 1;
    this.#guestLost = false;
    this.#executor = new GuestExecutor(port, falcon, new Tap(tapFd, this.#plan.guest.mac));
    this.#verifier = new Verifier(port, (text) => this.#event('divergence', text, {}));
    this.#fingerprints = new FingerprintCheck(port);
    if (!valid) this.#receiver = new StateReceiver(port);
    falcon.setExecutor(this.#incarnation, valid);
  }

  start(nowUs: number): void {
    this.consensus.falcon.start(nowUs);
  }

  guestReady(): void {
    this.#guestReady = true;
  }

  peerGone(peer: ReplicaId): void {
    this.#event('peer-gone', `Replica ${this.#name(peer)} has ended`, { replica: peer });
    this.consensus.falcon.peerGone(peer);
    if (this.#sender?.peer.id === peer) this.#sender = undefined;
    // Whoever waits for its bitmap or its root waits in vain.
    if (this.#partner()?.id === peer || this.consensus.falcon.leader === peer) this.#abandonChecks();
    this.#stateWanted.delete(peer);
    this.#executed.delete(peer);
    this.#gone.add(peer);
  }

  /** Another process of the peer can be reached. */
  peerConnected(peer: ReplicaId): void {
    this.#gone.delete(peer);
  }

  /**
   * Gives the leadership to another executing replica; both go on executing, since both stand after the same records
   * then. Returns why not, if so.
   */
  handOver(to: ReplicaId): string | undefined {
    if (this.#sender !== undefined) return 'state is on its way to a replica';
    const { falcon } = this.consensus;
    return falcon.transferTo(to, falcon.executingSet);
  }

  /** One pass. True when there was something to do, so that another pass may find more. */
  pass(nowUs: number): boolean {
    const { falcon } = this.consensus;
    falcon.tick(nowUs);
    let worked = this.#takeMail();
    worked = this.consensus.takeInputs() || worked;
    this.#takeRebase();
    try {
      worked = this.#moveGuest(nowUs) || worked;
    } catch (error) {
      if (!(error instanceof PortLostError)) throw error;
      this.#loseGuest(error);
      worked = true;
    }
    this.#noteAlone(nowUs);
    if (falcon.leader !== undefined && falcon.leader !== this.#self) this.#formerLeader = falcon.leader;
    // A leader whose guest hangs must not look alive, nor one whose disk does.
    const hangs = this.#executor?.hangs(nowUs) === true || this.consensus.storage.stalls(nowUs);
    if (!hangs) falcon.leaderProgress();
    return this.consensus.carryOut() || worked;
  }

  /** Microseconds until something here falls due without an input. */
  waitUs(nowUs: number): number {
    const { falcon } = this.consensus;
    let waitUs = falcon.nextDeadlineUs - nowUs;
    const executor = this.#executor;
    if (executor !== undefined && this.#waitsForPace) {
      waitUs = Math.min(
        waitUs,
        this.#pacemaker.waitNs(nowUs * 1000, executor.virtualNs, executor.idle) / 1000,
      );
    }
    return Math.max(0, Math.min(waitUs, 50_000));
  }

  status(): EngineStatus {
    const { falcon } = this.consensus;
    const executor = this.#executor;
    const verifier = this.#verifier;
    const fingerprints = this.#fingerprints;
    return {
      replica: this.#self,
      role: this.#role(),
      state: this.#state(),
      term: falcon.term,
      leader: falcon.leader ?? null,
      commitIndex: falcon.commitIndex,
      appliedIndex: executor?.appliedIndex ?? 0,
      serving: executor?.serving ?? false,
      guestReady: this.#guestReady,
      executing: falcon.executingSetCommitted.map((member) => member.replica),
      virtualMs: (executor?.virtualNs ?? 0) / 1e6,
      rounds: this.#rounds,
      framesDelivered: executor?.framesDelivered ?? 0,
      verifications: (verifier?.verifications ?? 0) + (fingerprints?.equal ?? 0),
      verifiedPages: (verifier?.pages ?? 0) + (fingerprints?.pages ?? 0),
      mismatches: verifier?.mismatches ?? 0,
      divergentPages: verifier?.divergentPages ?? 0,
      roundsPerSecond: executor?.serving === true ? this.#roundRate.perSecond(this.#nowUs) : 0,
      aloneForMs: this.#aloneSinceUs === Infinity ? null : (this.#nowUs - this.#aloneSinceUs) / 1000,
      transfer: this.#transferStatus(),
    };
  }

  #transferStatus(): EngineStatus['transfer'] {
    const sender = this.#sender;
    if (sender === undefined) return null;
    return {
      to: sender.peer.id,
      sentBytes: sender.sentBytes,
      totalBytes: this.#plan.guest.memoryBytes,
      guestStands: sender.index !== undefined,
      forMs: (this.#nowUs - this.#transferBeganUs) / 1000,
    };
  }

  #role(): EngineStatus['role'] {
    const { falcon } = this.consensus;
    if (falcon.role === 'leader') return 'leader';
    if (falcon.role !== 'follower') return 'candidate';
    return this.#executes ? 'backup' : 'standby';
  }

  #state(): EngineStatus['state'] {
    if (this.#guestLost) return 'guest lost';
    if (this.consensus.storage.fullForMs(this.#nowUs) !== undefined) return 'disk full';
    if (this.consensus.falcon.leader === undefined) return 'starting';
    if (this.#executor === undefined) return 'logging';
    return this.#receiver === undefined ? 'running' : 'waiting for state';
  }

  /** The log lost touch with the leader's and began anew: this guest lacks rounds, and needs state again. */
  #takeRebase(): void {
    const index = this.consensus.storage.takeRebased();
    if (index === undefined || this.#executor === undefined || this.#receiver !== undefined) return;
    this.#event('rebased', `The log begins anew behind record ${index}: the guest needs state`, { index });
    this.#abandonChecks();
    this.#receiver = new StateReceiver(this.#executor.port);
  }

  // Mail ---------------------------------------------------------------------------------------------

  #takeMail(): boolean {
    let worked = false;
    for (const peer of this.#transport.peers()) {
      for (let taken = 0; taken < messagesPerPassMax && peer.messages.next(); taken++) {
        const { kind } = peer.messages;
        const bytes = peer.messages.copy();
        peer.messages.consume();
        this.#takeMessage(peer, kind, bytes);
        worked = true;
      }
    }
    return worked;
  }

  /** A message of another cluster or version, or under a name that is in use, is refused; told once each. */
  #takeControl(from: ReplicaId, bytes: Uint8Array): void {
    const refusal = this.consensus.falcon.receive(from, bytes);
    if (refusal === undefined || this.#refused.has(`${from} ${refusal}`)) return;
    this.#refused.add(`${from} ${refusal}`);
    this.#event('message-refused', refusalText(refusal, from), { replica: from, refusal });
  }

  #takeMessage(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    switch (kind) {
      case MailKind.falcon:
        this.#takeControl(peer.id, bytes);
        break;
      case MailKind.executed:
        if (!this.#gone.has(peer.id))
          this.#executed.set(peer.id, { index: readUint64(view, 0), sinceUs: this.#nowUs });
        break;
      case MailKind.bitmap:
      case MailKind.root:
      case MailKind.hashesWanted:
      case MailKind.hashes:
        this.#verifier?.take(peer, kind, bytes);
        break;
      case MailKind.fingerprint:
        this.#fingerprints?.peerTold(readUint64(view, 0), bytes.subarray(8));
        break;
      case MailKind.stateWanted:
        if (!this.#gone.has(peer.id)) this.#takeStateWanted(peer.id, readUint64(view, 0));
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

  #takeState(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    const loaded = this.#receiver?.take(kind, bytes);
    if (loaded === undefined || this.#executor === undefined) return;
    this.#receiver = undefined;
    this.#outsideSinceUs = Infinity;
    this.#guestReady = true; // Only a guest that is ready is transferred.
    this.#executor.stateLoaded(loaded.index, loaded.virtualNs);
    this.consensus.falcon.setExecutor(this.#incarnation, true);
    writeUint64(new DataView(this.#word.buffer), 0, loaded.index);
    peer.send(MailKind.stateLoaded, this.#word);
    this.#event('state-loaded', `State of record ${loaded.index} loaded`, { index: loaded.index });
  }

  // The guest ----------------------------------------------------------------------------------------

  get #nowUs(): number {
    return this.consensus.falcon.state.nowUs;
  }

  #moveGuest(nowUs: number): boolean {
    const executor = this.#executor;
    const { falcon } = this.consensus;
    if (executor === undefined) {
      falcon.applied(falcon.commitIndex);
      return false;
    }
    if (this.#receiver !== undefined) {
      falcon.applied(falcon.commitIndex);
      this.#askForState(nowUs);
      return false;
    }
    let worked = this.#leftBehind(executor, nowUs);
    if (executor.takeEnd()) {
      this.#rounds++;
      this.#roundRate.count(nowUs);
      this.#roundsSinceVerification++;
      this.#tellExecuted(executor);
      worked = true;
    }
    worked = this.#compare() || worked;
    worked = this.#applyCommitted(executor) || worked;
    worked = this.#lead(executor, nowUs) || worked;
    return worked;
  }

  /** A backup that was taken out of the executing set begins anew: true when it does. */
  #leftBehind(executor: GuestExecutor, nowUs: number): boolean {
    const { falcon } = this.consensus;
    const outside =
      falcon.role === 'follower' &&
      falcon.leader !== undefined &&
      !falcon.executingSetCommitted.some((member) => member.replica === this.#self);
    if (!outside) {
      this.#outsideSinceUs = Infinity;
      executor.standBy();
      return false;
    }
    this.#outsideSinceUs = Math.min(this.#outsideSinceUs, nowUs);
    if (nowUs - this.#outsideSinceUs < leftBehindUs || !executor.stands) return false;
    this.#event('left-behind', 'The log names this guest no longer: it asks for state', {});
    this.#abandonChecks();
    falcon.setExecutor(this.#incarnation, false);
    this.#receiver = new StateReceiver(executor.port);
    return true;
  }

  /** Goes on with a comparison, unless its term has ended: then nobody may answer any more. */
  #compare(): boolean {
    const verifier = this.#verifier;
    if (verifier?.busy !== true) return false;
    if (this.#comparison.term === this.consensus.falcon.term) return verifier.step();
    this.#abandonChecks();
    return true;
  }

  #abandonChecks(): void {
    this.#verifier?.abandon();
    this.#fingerprints?.abandon();
  }

  #askForState(nowUs: number): void {
    const { leader } = this.consensus.falcon;
    if (leader === undefined || nowUs - this.#stateAskedUs < stateWantedIntervalUs) return;
    this.#stateAskedUs = nowUs;
    writeUint64(new DataView(this.#word.buffer), 0, this.#incarnation);
    this.#transport.peer(leader)?.send(MailKind.stateWanted, this.#word);
  }

  #tellExecuted(executor: GuestExecutor): void {
    const { leader } = this.consensus.falcon;
    if (leader === undefined || leader === this.#self) return;
    writeUint64(new DataView(this.#word.buffer), 0, executor.appliedIndex);
    this.#transport.peer(leader)?.send(MailKind.executed, this.#word);
  }

  #applyCommitted(executor: GuestExecutor): boolean {
    const verifier = this.#verifier;
    if (verifier === undefined || verifier.busy || this.#sender?.index !== undefined) return false;
    const { falcon } = this.consensus;
    const index = executor.nextCommitted();
    if (index === 0) return false;
    const type = recordType(falcon.log.memory, falcon.log.offsetAt(index));
    if (type === RoundRecordType.verification) this.#takeFingerprint(executor, index);
    else if (type === RoundRecordType.comparison) this.#verify(executor, verifier, index);
    else {
      executor.execute(index);
      this.#noteGuestEnd(type, index);
    }
    return true;
  }

  /** That the guest has reset itself or ended takes effect here, by a committed record. */
  #noteGuestEnd(type: number, index: LogIndex): void {
    if (type === RoundRecordType.guestReset)
      this.#event('guest-reset', 'The guest has reset itself', { index });
    if (type !== RoundRecordType.guestOff) return;
    const { memory } = this.consensus.falcon.log;
    const crashed = recordCount(memory, this.consensus.falcon.log.offsetAt(index)) !== stopReason.shutdown;
    this.#off = crashed ? 'crashed' : 'powered off';
    this.#event(
      crashed ? 'guest-crashed' : 'guest-off',
      crashed
        ? 'The guest has crashed, on all replicas alike: it stays off'
        : 'The guest has powered itself off: it stays off',
      { index },
    );
    this.#face.guestOff(this.#off);
  }

  /** Leader: the guest has ended; what becomes of it is agreed on first. */
  #proposeEnd(ended: number): boolean {
    if (this.#off !== undefined) return false;
    const type = ended === stopReason.reset ? RoundRecordType.guestReset : RoundRecordType.guestOff;
    return typeof this.consensus.falcon.propose(type, ended, new Uint8Array(0)) === 'number';
  }

  /** What the guest has changed since the last one, as one hash; the leader's goes on at once. */
  #takeFingerprint(executor: GuestExecutor, index: LogIndex): void {
    executor.passOver(index);
    this.#roundsSinceVerification = 0;
    this.#framesSinceVerification = 0;
    const partner = this.#partner();
    const fingerprint = this.#fingerprints?.take();
    this.#sender?.addDirty(executor.port.dirtyBitmap);
    if (partner === undefined || fingerprint === undefined) return;
    this.#verifier?.addDirty(executor.port.dirtyBitmap);
    if (this.consensus.falcon.role === 'leader') {
      this.#fingerprints?.own(index, fingerprint);
      return;
    }
    const message = new Uint8Array(8 + fingerprint.hash.length);
    writeUint64(new DataView(message.buffer), 0, index);
    message.set(fingerprint.hash, 8);
    partner.send(MailKind.fingerprint, message);
  }

  /** Both sides stand after the same records: their memories must be equal. */
  #verify(executor: GuestExecutor, verifier: Verifier, index: LogIndex): void {
    const partner = this.#partner();
    executor.passOver(index);
    this.#comparison = { term: this.consensus.falcon.term, sinceUs: this.#nowUs };
    this.#fingerprints?.abandon();
    if (partner === undefined) return;
    verifier.begin(index, partner, this.consensus.falcon.role === 'leader');
    this.#sender?.addDirty(executor.port.dirtyBitmap);
  }

  /** The other executing member, as the log has it. */
  #partner(): TransportPeer | undefined {
    for (const { replica } of this.consensus.falcon.executingSetCommitted) {
      if (replica !== this.#self) return this.#transport.peer(replica);
    }
    return undefined;
  }

  // Leading ------------------------------------------------------------------------------------------

  #lead(executor: GuestExecutor, nowUs: number): boolean {
    const { falcon } = this.consensus;
    const level = executor.stands && executor.appliedIndex === falcon.commitIndex;
    this.#waitsForPace = false;
    if (!falcon.mayServe) {
      this.#sender = undefined;
      if (executor.serving) {
        executor.endServing();
        this.#event('serving-ended', `Term ${falcon.term} is led by another replica`, { term: falcon.term });
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
      this.#event('serving', `Serves in term ${falcon.term} from record ${executor.appliedIndex}`, {
        term: falcon.term,
        index: executor.appliedIndex,
      });
      this.#tellFailover(nowUs);
      return true;
    }
    const sent = this.#sendState();
    if (this.#sender?.index !== undefined) return sent;
    this.#watchPartner(nowUs);
    if (this.#verifier?.busy === true) return sent;
    if (!level) return this.#proposeAhead(executor, nowUs) || sent;
    if (falcon.log.lastIndex !== falcon.commitIndex) return sent;
    if (executor.ended !== undefined) return this.#proposeEnd(executor.ended) || sent;
    return this.#moveTransfer(executor) || this.#proposeNext(executor, nowUs) || sent;
  }

  /** How long nobody served, as far as this replica can tell: since it last heard of the leader before it. */
  #tellFailover(nowUs: number): void {
    const from = this.#formerLeader;
    // While a new VM's replicas find each other, one may lead that has no guest yet: nobody was served by it.
    const isBeginning = this.#incarnation === 1 && this.#rounds === 0 && this.#first;
    if (from === undefined || isBeginning) return;
    const { falcon } = this.consensus;
    const gapMs = Math.round((nowUs - falcon.state.leaderContactUs) / 1000);
    this.#event('failover', `Took over from ${this.#name(from)}, which was last heard ${gapMs} ms ago`, {
      from,
      to: this.#self,
      term: falcon.term,
      gapMs,
    });
  }

  /** Whether the state of the guest that serves is held anywhere else. */
  #noteAlone(nowUs: number): void {
    const { executingSetCommitted } = this.consensus.falcon;
    const alone = this.#executor?.serving === true && executingSetCommitted.length < 2;
    if (!alone) this.#aloneSinceUs = Infinity;
    else if (this.#aloneSinceUs === Infinity) this.#aloneSinceUs = nowUs;
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
    this.#event('transfer-given-up', `${this.#name(sender.peer.id)} takes no state for 3 s`, {});
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
    if (!this.#guestReady) return false;
    for (const [replica, incarnation] of this.#stateWanted) {
      const peer = this.#transport.peer(replica);
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
    return this.consensus.falcon.executingSet.some((member) => member.replica === replica);
  }

  #stateArrived(replica: ReplicaId, index: number): void {
    const sender = this.#sender;
    if (sender?.peer.id !== replica || sender.index !== index) return;
    this.#sender = undefined;
    this.#stateWanted.delete(replica);
    const pauseMs = Math.round((this.#nowUs - this.#standsSinceUs) / 1000);
    const tookMs = Math.round((this.#nowUs - this.#transferBeganUs) / 1000);
    this.#event(
      'state-sent',
      `State of record ${index} sent to ${this.#name(replica)}: ${(sender.sentBytes / 1e6).toFixed(1)} MB in ${tookMs} ms, for ${pauseMs} ms of which the guest stood`,
      { index, bytes: sender.sentBytes, tookMs, pauseMs },
    );
    this.#addExecutor(replica);
  }

  #addExecutor(replica: ReplicaId): void {
    const { falcon } = this.consensus;
    this.#executed.set(replica, { index: this.#executor?.appliedIndex ?? 0, sinceUs: this.#nowUs });
    const result = falcon.proposeExecutingSet([
      ...falcon.executingSet,
      { replica, incarnation: this.#receiverIncarnation },
    ]);
    if (typeof result === 'string') {
      this.#event('set-refused', `${this.#name(replica)} not added to the executing set: ${result}`, {});
      return;
    }
    this.#event('protected', `${this.#name(replica)} executes from record ${result}`, { index: result });
  }

  /** A backup that is gone or stands still must not hold up the service: it leaves the executing set. */
  #watchPartner(nowUs: number): void {
    const { falcon } = this.consensus;
    const executor = this.#executor;
    for (const { replica } of falcon.executingSet) {
      if (replica === this.#self || executor === undefined) continue;
      const progress = this.#executed.get(replica);
      const lags = progress !== undefined && progress.index + leadMax < executor.appliedIndex;
      const stalls =
        (lags && nowUs - progress.sinceUs > backupStallUs) ||
        (this.#verifier?.busy === true && nowUs - this.#comparison.sinceUs > backupStallUs);
      // Whoever asks for state has no guest that executes.
      if (progress !== undefined && !stalls && !this.#stateWanted.has(replica)) continue;
      const result = falcon.proposeExecutingSet(
        falcon.executingSet.filter((member) => member.replica !== replica),
      );
      if (typeof result === 'number') {
        this.#event('degraded', `${this.#name(replica)} no longer executes: it has ended or stands still`, {
          index: result,
        });
        this.#abandonChecks();
      }
      return;
    }
  }

  #proposeNext(executor: GuestExecutor, nowUs: number): boolean {
    if (this.#leadsTooFar(executor)) return false;
    const { ingress } = executor.port;
    const framesWait = ingress.hasEntry;
    const check = this.#checkDue(executor, framesWait);
    if (check !== undefined)
      return typeof this.consensus.falcon.propose(check, 0, new Uint8Array(0)) === 'number';
    const sliceNs = this.#pacemaker.sliceNs(nowUs * 1000, executor.virtualNs, executor.idle, framesWait);
    this.#waitsForPace = sliceNs === 0;
    return sliceNs !== 0 && this.#proposeRound(executor, executor.virtualNs + sliceNs);
  }

  /** While a round runs, frames that came meanwhile are agreed on already: the next round begins at its end. */
  #proposeAhead(executor: GuestExecutor, nowUs: number): boolean {
    const { log } = this.consensus.falcon;
    const { runningUntilNs } = executor;
    if (executor.stands || log.lastIndex !== executor.appliedIndex + 1 || !executor.port.ingress.hasEntry)
      return false;
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
    if (this.#fingerprints?.differ === true) return RoundRecordType.comparison;
    const due =
      this.#roundsSinceVerification >= verificationIntervalRounds ||
      (this.#framesSinceVerification > 0 && executor.idle && !framesWait);
    return due ? RoundRecordType.verification : undefined;
  }

  #proposeRound(executor: GuestExecutor, untilNs: number): boolean {
    const { falcon } = this.consensus;
    const { ingress } = executor.port;
    const at = falcon.reserve(batchBytesMax);
    if (at === -1) return false;
    const { memory } = falcon.log;
    let end = at + ROUND_HEADER_BYTES;
    let count = 0;
    while (ingress.next() && end + frameBytesInRound(ingress.length) <= at + batchBytesMax) {
      end = writeFrame(memory, end, ingress.data, ingress.offset, ingress.length);
      ingress.consume();
      count++;
    }
    writeRoundHeader(memory, at, untilNs, executor.appliedIndex);
    falcon.commitReserved(RoundRecordType.round, count, end - at);
    this.#framesSinceVerification += count;
    return true;
  }

  // Loss ---------------------------------------------------------------------------------------------

  #loseGuest(error: Error): void {
    this.#event('guest-lost', `The guest is lost: ${error.message}`, {});
    this.#guestLost = true;
    this.#executor = undefined;
    this.#verifier = undefined;
    this.#fingerprints = undefined;
    this.#receiver = undefined;
    this.#sender = undefined;
    this.consensus.falcon.setExecutor(this.#incarnation, false);
  }

  #name(id: ReplicaId): string {
    return this.#plan.replicas.find((replica) => replica.id === id)?.name ?? String(id);
  }

  #event(name: string, text: string, data: Readonly<Record<string, number | string>>): void {
    this.#face.event({ name, text, data });
  }
}
