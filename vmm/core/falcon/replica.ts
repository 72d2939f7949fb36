/**
 * One replica of the Falcon log: a state machine without I/O, clock or chance of its own. The shell around
 * it feeds time, messages and the bytes it finds in memory, and carries out what the replica asks for, in
 * this order after every batch of inputs:
 *
 *   1. while `hardStateDirty`: make `hardState()` durable, then `hardStatePersisted()`. No message leaves
 *      before that, and the own vote does not count.
 *   2. `takeRegionRequest()`: stop reading the old region for good, make a fresh one, `regionOpened()`.
 *   3. `takeMessage()` until undefined: send; it may get lost.
 *   4. `disk` durability: `nextToPersist()`, hand the record to the disk, `handedToPersist()`; later
 *      `durable()`. The bytes must be copied when handed over: a leader may stamp them anew.
 *   5. per peer: `nextToShip()`, put the bytes at `offsetToShip()` into its region, `shipped()`.
 *   6. `heartbeatDue` (leader): put `writeHeartbeat()` into every peer's region; `ackDue` (backup): put
 *      `writeAck()` into the leader's ack memory.
 *   7. act on committed records up to `commitIndex`, then `applied()`.
 */
import { NO_REPLICA, type LogIndex, type ReplicaId, type Term } from '../ids.ts';
import { invariant } from '../invariant.ts';
import { ControlIntake } from './control-intake.ts';
import { REGION_KEY_BYTES_MAX, type ControlRefusal } from './control-message.ts';
import { Election } from './election.ts';
import { EXECUTORS_MAX, setHolds, type ExecutingSet } from './executing-set.ts';
import { RecordIntake } from './intake.ts';
import { Rejoin } from './rejoin.ts';
import { Leadership } from './leadership.ts';
import type { FalconLog } from './log.ts';
import { MembershipChanger, type MembershipChange, type MembershipRefusal } from './membership-change.ts';
import type { Members } from './membership.ts';
import type { RegionRequest } from './read-region.ts';
import { recordBytesFor, type RecordMemory } from './record.ts';
import { RecordType } from './record-type.ts';
import { restoreRecord } from './recovery.ts';
import type { FalconSettings, HardState, LogBase } from './settings.ts';
import type { Ack } from './signal.ts';
import { ReplicaState, type OutboundMessage, type Role } from './state.ts';
import { Transfer, type ExecutorState } from './transfer.ts';

/** Why nothing is proposed now. */
export type ProposeRefusal =
  | 'not leading'
  | 'term not begun'
  | 'not executing'
  | 'transfer under way'
  | 'log full'
  | 'too large'
  | 'set change under way'
  | 'not a voter';

export class FalconReplica {
  readonly state: ReplicaState;
  readonly intake: RecordIntake;
  readonly leadership: Leadership;
  readonly election: Election;
  readonly transfer: Transfer;
  readonly rejoin: Rejoin;
  readonly changer: MembershipChanger;
  readonly #control: ControlIntake;
  #started = false;
  #reservedAt = -1;
  #reservedBytes = 0;

  constructor(settings: FalconSettings) {
    this.state = new ReplicaState(settings);
    this.intake = new RecordIntake(this.state);
    this.leadership = new Leadership(this.state);
    this.election = new Election(this.state, this.leadership);
    this.transfer = new Transfer(this.state, this.leadership, this.election);
    this.rejoin = new Rejoin(this.state);
    this.changer = new MembershipChanger(this.state, this.leadership);
    this.#control = new ControlIntake(this);
  }

  // Start --------------------------------------------------------------------------------------------

  /** Takes a record that recovery read from disk, in order, before `start`. False: harmed, or not the next. */
  restoreRecord(source: Uint8Array, offset: number, length: number): boolean {
    invariant(!this.#started, 'records are restored before the start');
    return restoreRecord(this.state, source, offset, length);
  }

  /** From now on time runs. A leader may be alive that this process has not heard yet: no vote against it. */
  start(nowUs: number): void {
    this.#started = true;
    this.state.nowUs = nowUs;
    this.state.leaderContactUs = nowUs;
    this.state.restartElectionTimer();
  }

  // Time and control ---------------------------------------------------------------------------------

  tick(nowUs: number): void {
    const { state } = this;
    const missedUs = state.look(nowUs);
    if (missedUs > 0) state.silence.heldUp(missedUs);
    if (state.role === 'leader') this.leadership.tick(missedUs);
    this.transfer.tick();
    this.rejoin.tick();
    if (state.role !== 'leader') this.election.tick();
  }

  /** When `tick` is worth calling next if nothing else comes in. */
  get nextDeadlineUs(): number {
    const { state } = this;
    if (state.role === 'leader') return this.leadership.deadlineUs;
    return this.election.deadlineUs;
  }

  /** A control message, as the transport says from `from`. Returns why it was refused, if it was. */
  receive(from: ReplicaId, bytes: Uint8Array): ControlRefusal | undefined {
    return this.#control.receive(from, bytes);
  }

  /** The peer's process is known to have ended. */
  peerGone(peer: ReplicaId): void {
    const { state } = this;
    this.leadership.peerGone(peer);
    const followed = state.leader === peer || state.region.writer === peer;
    if (followed && (state.role === 'follower' || state.role === 'preCandidate')) this.election.leaderGone();
  }

  takeMessage(): OutboundMessage | undefined {
    return this.state.takeMessage();
  }

  get hardStateDirty(): boolean {
    return this.state.hardStateDirty;
  }

  hardState(): HardState {
    const { term, votedFor, settings } = this.state;
    return { clusterId: settings.hardState.clusterId, term, votedFor };
  }

  /** What `hardState()` returned last is durable. */
  hardStatePersisted(): void {
    this.state.hardStateDirty = false;
    this.election.ownVoteIsDurable();
  }

  // Regions ------------------------------------------------------------------------------------------

  takeRegionRequest(): RegionRequest | undefined {
    return this.state.region.takeRequest();
  }

  /** Fresh memory is ready for this writer and term; `key` is what the writer needs to reach it. */
  regionOpened(writer: ReplicaId, term: Term, key: Uint8Array): void {
    invariant(key.length <= REGION_KEY_BYTES_MAX, 'a region key fits its maximum');
    const { state } = this;
    if (!state.region.isFor(writer, term) || state.region.status !== 'asked' || term !== state.term) return;
    state.region.opened(key);
    this.election.answerWithRegion();
  }

  /** The region's bytes make no sense any more (not one record, but its framing): a fresh one is asked for. */
  regionBroken(): void {
    const { state } = this;
    const { region } = state;
    if (region.status === 'open') region.ask(region.writer, region.term, false);
  }

  /** True while records of this writer and term are still taken: the shell polls only then. */
  regionIsOpen(writer: ReplicaId, term: Term): boolean {
    const { region } = this.state;
    return region.status === 'open' && region.writer === writer && region.term === term;
  }

  /** Where acks go: the key that the leader, or the candidate voted for, gave. */
  get leaderAckKey(): Uint8Array {
    return this.state.leaderAckKey;
  }

  /** The key by which backups reach this replica's ack memory; set before `start`. */
  setAckMemoryKey(key: Uint8Array): void {
    this.state.ackMemoryKey = key.slice();
  }

  // Backup -------------------------------------------------------------------------------------------

  /** One `IntakeResult`. The bytes are copied before they are checked; they may change meanwhile. */
  receiveRecord(source: Uint8Array, offset: number, length: number): number {
    return this.intake.receiveRecord(source, offset, length);
  }

  receiveHeartbeat(from: ReplicaId, term: Term, counter: number, commitIndex: LogIndex): void {
    this.intake.receiveHeartbeat(from, term, counter, commitIndex);
  }

  /** Reads the heartbeat block that lies in the region; false when it is torn, or says nothing new. */
  readHeartbeat(from: ReplicaId, source: Uint8Array, at: number): boolean {
    return this.intake.readHeartbeat(from, source, at);
  }

  get ackDue(): boolean {
    const { ackDue, region, rebasedIndex } = this.state;
    return ackDue && region.status === 'open' && rebasedIndex === undefined;
  }

  writeAck(memory: RecordMemory, at: number): void {
    this.state.ackDue = false;
    this.intake.writeAck(memory, at);
  }

  /**
   * The index behind which the log begins anew, once after each rebase: the leader no longer had what was
   * lacking here. The applier goes on behind it; the guest is not VALID. Disk durability: `base` is the durable
   * log's new beginning, durable before anything else is carried out; what the disk held before is void.
   */
  takeRebased(): LogIndex | undefined {
    return this.rejoin.takeRebased();
  }

  /**
   * Where the log in memory begins, as a durable log must keep it to begin there too. Sets and members are the
   * newest committed ones, which may be newer than the records behind the beginning say: never older.
   */
  get base(): LogBase & { readonly members: Members } {
    const { log, executing, membership, commitIndex } = this.state;
    const index = (log.firstIndex - 1) as LogIndex;
    return {
      index,
      term: log.termAt(index),
      checksum: log.checksumAt(index),
      executing: executing.committed(commitIndex),
      members: membership.committed(commitIndex),
    };
  }

  // Disk ---------------------------------------------------------------------------------------------

  /**
   * Next record to write to disk, or 0. It may be one that was handed out before: the log was truncated, and
   * what the disk holds from this index on is void.
   */
  nextToPersist(): LogIndex {
    const { settings, persistCursor, log } = this.state;
    if (settings.durability === 'memory' || persistCursor > log.lastIndex) return 0 as LogIndex;
    return persistCursor;
  }

  handedToPersist(index: LogIndex): void {
    this.state.persistCursor = (index + 1) as LogIndex;
  }

  /** To be given back with `durable`; completions of an older epoch are void. */
  get persistEpoch(): number {
    return this.state.persistEpoch;
  }

  /** Everything handed over up to `index` while `persistEpoch` was `epoch` is on disk. */
  durable(index: LogIndex, epoch: number): void {
    const { state } = this;
    if (epoch !== state.persistEpoch || index <= state.durableIndex || index > state.log.lastIndex) return;
    state.durableIndex = index;
    state.ackDue = true;
    this.leadership.evaluateCommit();
  }

  // Leader -------------------------------------------------------------------------------------------

  /** The key of the region that `peer` opened for this leader, or undefined. */
  peerRegion(peer: ReplicaId): Uint8Array | undefined {
    return this.leadership.regionKey(peer);
  }

  /** A put into this peer's region failed, so what comes after it may not be put either: a fresh one is asked for. */
  regionLost(peer: ReplicaId): void {
    this.leadership.forgetRegion(peer);
  }

  /** Rises whenever `peerRegion(peer)` becomes another one, to be filled from its beginning. */
  peerRegionVersion(peer: ReplicaId): number {
    return this.leadership.regionVersion(peer);
  }

  /** Next record for this peer, or 0 when there is none. */
  nextToShip(peer: ReplicaId): LogIndex {
    return this.leadership.nextToShip(peer);
  }

  /** First record that this peer needs and memory has dropped: to be read with `readToShip`; 0 if none. */
  needsCatchUp(peer: ReplicaId): LogIndex {
    return this.leadership.needsCatchUp(peer);
  }

  /** Where the record lies in `log.memory.bytes`, made ready to send; its length is `log.bytesAt(index)`. */
  offsetToShip(index: LogIndex): number {
    return this.leadership.offsetToShip(index);
  }

  /** Reads a record from the durable log into the caller's memory, ready to send: its bytes, or 0: not now. */
  readToShip(index: LogIndex, memory: RecordMemory, at: number): number {
    return this.leadership.readToShip(index, memory, at);
  }

  shipped(peer: ReplicaId, index: LogIndex): void {
    this.leadership.shipped(peer, index);
  }

  receiveAck(peer: ReplicaId, ack: Ack): void {
    this.leadership.receiveAck(peer, ack);
  }

  /** Reads the peer's ack block in this leader's memory; cheap when unchanged. */
  readAck(peer: ReplicaId, source: Uint8Array, at: number): boolean {
    return this.leadership.readAck(peer, source, at);
  }

  /** Replication and rounds are moving, or have nothing to do: the next heartbeat may go out. */
  leaderProgress(): void {
    this.leadership.progress();
  }

  get heartbeatDue(): boolean {
    return this.state.role === 'leader' && this.leadership.heartbeatDue;
  }

  writeHeartbeat(memory: RecordMemory, at: number): void {
    this.leadership.writeHeartbeat(memory, at);
  }

  /** The heartbeat lies in every region that could be reached. */
  heartbeatWritten(): void {
    this.leadership.heartbeatWritten();
  }

  /** Why the next application record would be refused now; undefined: it would not. */
  get proposeRefusal(): ProposeRefusal | undefined {
    const { state } = this;
    if (state.role !== 'leader') return 'not leading';
    if (this.transfer.underWay) return 'transfer under way';
    if (state.commitIndex < this.leadership.serveFromIndex) return 'term not begun';
    return this.mayServe ? undefined : 'not executing';
  }

  /**
   * Where up to `payloadBytes` of the next record may be written, as an offset in `log.memory.bytes`, or -1:
   * see `proposeRefusal`, or the log is full. Holds until `commitReserved` or the next input.
   */
  reserve(payloadBytes: number): number {
    const { log, commitIndex } = this.state;
    if (this.proposeRefusal !== undefined || !log.takesProposal(recordBytesFor(payloadBytes), commitIndex))
      return -1;
    this.#reservedAt = this.leadership.reserve(payloadBytes, RecordType.firstOfApplication);
    this.#reservedBytes = payloadBytes;
    return this.#reservedAt;
  }

  /** Makes a record of what was written at `reserve`'s offset: `payloadBytes` of it. Returns its index. */
  commitReserved(type: number, count: number, payloadBytes: number): LogIndex {
    invariant(
      this.#reservedAt !== -1 && payloadBytes <= this.#reservedBytes,
      'a record fits what was reserved',
    );
    const at = this.#reservedAt;
    this.#reservedAt = -1;
    return this.leadership.append(at, type, count, payloadBytes);
  }

  /** Copies the payload and proposes it; its index, or why not. */
  propose(type: number, count: number, payload: Uint8Array): LogIndex | ProposeRefusal {
    const { log } = this.state;
    invariant(type >= RecordType.firstOfApplication, 'the core proposes its own records itself');
    const refusal = this.proposeRefusal;
    if (refusal !== undefined) return refusal;
    if (recordBytesFor(payload.length) > log.limits.recordBytesMax) return 'too large';
    const at = this.reserve(payload.length);
    if (at === -1) return 'log full';
    log.memory.bytes.set(payload, at);
    return this.commitReserved(type, count, payload.length);
  }

  // Who may execute ----------------------------------------------------------------------------------

  /** This replica's QEMU process, and whether its guest is VALID. A new process begins as not VALID. */
  setExecutor(incarnation: number, valid: boolean): void {
    const { state } = this;
    if (state.executorIncarnation === incarnation && state.executorValid === valid) return;
    state.executorIncarnation = incarnation;
    state.executorValid = valid;
    state.ackDue = true;
  }

  /** May inject committed inputs and release output: leads, has begun its term, and is in the old set and the new. */
  get mayServe(): boolean {
    const { state } = this;
    if (state.role !== 'leader' || this.transfer.underWay || !state.eligible) return false;
    if (state.commitIndex < this.leadership.serveFromIndex) return false;
    return setHolds(state.executing.committed(state.commitIndex), state.self, state.executorIncarnation);
  }

  /** Proposes another executing set; one change at a time. Adding asks for VALID first: the caller's duty. */
  proposeExecutingSet(set: ExecutingSet): LogIndex | ProposeRefusal {
    invariant(set.length <= EXECUTORS_MAX, 'an executing set is small');
    const { membership } = this.state;
    const refusal = this.proposeRefusal;
    if (refusal !== undefined) return refusal;
    if (this.changer.changeUnderWay()) return 'set change under way';
    for (const { replica } of set) if (!membership.isVoter(replica)) return 'not a voter';
    const index = this.leadership.appendExecutingSet(RecordType.executingSet, set);
    return index === 0 ? 'log full' : index;
  }

  /** Adds, promotes or removes one replica. Any leader may, whether it executes or not. */
  proposeMembers(change: MembershipChange): LogIndex | MembershipRefusal {
    return this.changer.propose(change, this.transfer.underWay);
  }

  /** Who belongs to the cluster by the newest list in the log. */
  get members(): Members {
    return this.state.membership.newest;
  }

  get membersCommitted(): Members {
    return this.state.membership.committed(this.state.commitIndex);
  }

  /**
   * Gives the term to `peer`: brings it level and tells it to stand. `executing` is what the first record of
   * its term states: this replica belongs to it only if both guests are equal at their last round, which is the
   * caller's to know; empty: the peer alone. Refused unless this replica serves, and `executing` names nobody
   * who does not execute now.
   */
  transferTo(peer: ReplicaId, executing: ExecutingSet): ProposeRefusal | undefined {
    const refusal = this.proposeRefusal;
    if (refusal !== undefined) return refusal;
    if (!this.leadership.peerMayServe(peer)) return 'not executing';
    const { newest } = this.state.executing;
    const namesPeer = executing.length === 0 || executing.some(({ replica }) => replica === peer);
    const known = executing.every(({ replica, incarnation }) => setHolds(newest, replica, incarnation));
    if (!namesPeer || !known) return 'not executing';
    this.transfer.begin(peer, true, executing);
    return undefined;
  }

  get executorState(): ExecutorState {
    return this.transfer.executorState;
  }

  get executingSet(): ExecutingSet {
    return this.state.executing.newest;
  }

  get executingSetCommitted(): ExecutingSet {
    return this.state.executing.committed(this.state.commitIndex);
  }

  // What an applier and an operator ask ----------------------------------------------------------------

  get log(): FalconLog {
    return this.state.log;
  }

  get role(): Role {
    return this.state.role;
  }

  get term(): Term {
    return this.state.term;
  }

  /** The leader of the current term as far as known, else undefined. */
  get leader(): ReplicaId | undefined {
    return this.state.leader === NO_REPLICA ? undefined : this.state.leader;
  }

  get commitIndex(): LogIndex {
    return this.state.commitIndex;
  }

  /** The applier is done with all records up to `index`; memory may drop them. */
  applied(index: LogIndex): void {
    invariant(index <= this.state.commitIndex, 'only committed records are applied');
    if (index > this.state.appliedIndex) this.state.appliedIndex = index;
  }

  /** Leader: until when output may leave without its looking again; Infinity: there is nobody else to ask. */
  get leaseEndUs(): number {
    return this.leadership.leaseEndUs;
  }
}
