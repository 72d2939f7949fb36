/**
 * The leader's side: what each peer holds, what is shipped to it next, what is committed, and whether a
 * majority still listens. A record is committed when a majority of the voters holds it durably and it is
 * of the own term, or precedes one that is; a first record of the own term goes before anything else.
 *
 * That majority need not include the leader's own disk. Whoever leads next was elected by one of those voters,
 * and so has the record; a leader that restarts without it gets it from them, as any backup that lacks some does.
 */
import type { LogIndex, ReplicaId } from '../ids.ts';
import { MessageKind, type ControlMessage } from './control-message.ts';
import { encodeExecutingSet, executingSetBytes, setHolds, type ExecutingSet } from './executing-set.ts';
import { encodeMembers, memberCount, membersBytes, type Members } from './membership.ts';
import {
  encodeRecord,
  RECORD_HEADER_BYTES,
  recordBytesFor,
  recordIndex,
  recordIsIntact,
  recordMemory,
  recordWriterTerm,
  stampRecord,
  type RecordMemory,
} from './record.ts';
import { RecordType } from './record-type.ts';
import { Ack, ACK_BYTES, blockWord, Heartbeat, readAckBlock, writeHeartbeatBlock } from './signal.ts';
import type { ReplicaState } from './state.ts';

const REPLICAS = 256;
/** Heartbeats whose sending time is remembered; an echo older than these proves nothing. */
const BEATS_REMEMBERED = 64;
/** How often between two heartbeats the leader looks after its peers. */
const TENDINGS_PER_BEAT = 8;

export class Leadership {
  readonly #state: ReplicaState;
  readonly #next = new Float64Array(REPLICAS);
  readonly #match = new Float64Array(REPLICAS);
  /** What the peer says has arrived, what was to be put next then, and since when neither has moved. */
  readonly #received = new Float64Array(REPLICAS);
  readonly #stalledNext = new Float64Array(REPLICAS);
  readonly #stalledUs = new Float64Array(REPLICAS);
  /** When the peer's newest ack came, or the key of its region. */
  readonly #heardUs = new Float64Array(REPLICAS);
  /** When the newest heartbeat that this peer has echoed was sent. */
  readonly #echoUs = new Float64Array(REPLICAS);
  /** Of the region that each peer has opened for this leader. */
  readonly #keys = new Array<Uint8Array | undefined>(REPLICAS).fill(undefined);
  readonly #regionNumbers = new Float64Array(REPLICAS);
  readonly #regionVersions = new Float64Array(REPLICAS);
  readonly #incarnations = new Float64Array(REPLICAS);
  readonly #valid = new Uint8Array(REPLICAS);
  readonly #processNumbers = new Float64Array(REPLICAS);
  readonly #ackWords = new Int32Array(REPLICAS);
  readonly #announcedUs = new Float64Array(REPLICAS);
  readonly #beatUs = new Float64Array(BEATS_REMEMBERED);
  readonly #ack = new Ack();
  readonly #beat = new Heartbeat();
  readonly #scratch: RecordMemory = recordMemory(new Uint8Array(ACK_BYTES));

  heartbeatCounter = 0;
  #beatDue = false;
  /** Something has committed that neither a heartbeat nor a record has told of. */
  #commitDue = false;
  #progress = false;
  /** No record before this one is asked of the durable log: it was found harmed there. */
  #readableFrom = 0;
  #lastBeatUs = 0;
  #tendedUs = -Infinity;
  /** The newest heartbeat that a majority has echoed, and since when in watched time none newer. */
  #majorityEchoUs = -Infinity;
  #echoSinceUs = 0;
  /** A majority voted for this term no later than then. */
  #beganUs = 0;
  /** The first record of the term, or a later one that must commit before this leader serves. */
  serveFromIndex = 0 as LogIndex;

  constructor(state: ReplicaState) {
    this.#state = state;
  }

  /** Before votes are asked for: nothing that a peer said in another term counts. */
  prepare(): void {
    this.#match.fill(0);
    this.#received.fill(0);
    this.#echoUs.fill(-Infinity);
    this.#announcedUs.fill(-Infinity);
    this.#valid.fill(0);
    this.#ackWords.fill(0);
    this.#regionNumbers.fill(0);
    this.#keys.fill(undefined);
  }

  begin(executing: ExecutingSet): void {
    const state = this.#state;
    state.role = 'leader';
    state.leader = state.self;
    state.leaderGone = false;
    state.matchedIndex = state.log.lastIndex;
    this.#majorityEchoUs = -Infinity;
    this.#echoSinceUs = state.watchUs;
    this.#beganUs = state.nowUs;
    this.#state.silence.restart();
    this.#lastBeatUs = -Infinity;
    this.#tendedUs = -Infinity;
    this.heartbeatCounter = 0;
    this.#progress = true;
    const index = this.appendExecutingSet(RecordType.termStart, executing);
    // A log full of records that were never applied: whoever has room must lead.
    if (index === 0) state.becomeFollower();
    this.serveFromIndex = index;
  }

  /** A peer's answer that says where records may be put for it, and how its log ends. */
  learnRegion(message: ControlMessage): void {
    const { from: peer, processNumber, regionNumber, key } = message;
    if (this.#processNumbers[peer] !== processNumber) return;
    if (regionNumber <= (this.#regionNumbers[peer] ?? 0)) return;
    this.#keys[peer] = key;
    this.#regionNumbers[peer] = regionNumber;
    this.#regionVersions[peer] = (this.#regionVersions[peer] ?? 0) + 1;
    this.#next[peer] = this.#nextAfter(message);
    this.#stalledUs[peer] = this.#state.watchUs;
    this.#heardUs[peer] = this.#state.watchUs;
  }

  /**
   * A peer whose log ends in ours gets that last record once more: by it the peer knows that all it holds is
   * ours, and acknowledges it, even when nothing new is ever proposed. Any other agrees with us at least up to
   * its commit index.
   */
  #nextAfter(message: ControlMessage): number {
    const { log } = this.#state;
    const ends = log.matches(message.lastIndex, message.lastTerm, message.lastChecksum);
    if (!ends) return Math.min(message.commitIndex, log.lastIndex) + 1;
    return log.has(message.lastIndex) ? message.lastIndex : message.lastIndex + 1;
  }

  resync(message: ControlMessage): void {
    const { from: peer, processNumber, regionNumber } = message;
    if (this.#processNumbers[peer] !== processNumber || this.#regionNumbers[peer] !== regionNumber) return;
    this.#next[peer] = Math.min(this.#next[peer] ?? 0, message.commitIndex + 1);
  }

  /** The peer runs as a new process: what an earlier one told us of its memory is void. */
  newProcess(peer: ReplicaId, processNumber: number): void {
    this.peerGone(peer);
    // What it held may be gone with it; what it still holds it will acknowledge again.
    this.#match[peer] = 0;
    this.#processNumbers[peer] = processNumber;
    this.#regionNumbers[peer] = 0;
  }

  peerGone(peer: ReplicaId): void {
    this.forgetRegion(peer);
    this.#valid[peer] = 0;
    this.#echoUs[peer] = -Infinity;
  }

  /** The peer's region can no longer be written: it is asked for another. */
  forgetRegion(peer: ReplicaId): void {
    this.#keys[peer] = undefined;
    this.#announcedUs[peer] = -Infinity;
    this.#tendedUs = -Infinity;
  }

  regionKey(peer: ReplicaId): Uint8Array | undefined {
    return this.#state.role === 'leader' ? this.#keys[peer] : undefined;
  }

  regionVersion(peer: ReplicaId): number {
    return this.#regionVersions[peer] ?? 0;
  }

  nextToShip(peer: ReplicaId): LogIndex {
    const state = this.#state;
    if (state.role !== 'leader' || this.#keys[peer] === undefined) return 0 as LogIndex;
    const next = this.#next[peer] ?? 0;
    return (next >= state.log.firstIndex && next <= state.log.lastIndex ? next : 0) as LogIndex;
  }

  needsCatchUp(peer: ReplicaId): LogIndex {
    const state = this.#state;
    if (state.role !== 'leader' || this.#keys[peer] === undefined) return 0 as LogIndex;
    const next = this.#next[peer] ?? 0;
    return (next < state.log.firstIndex && next >= this.#oldestIndex ? next : 0) as LogIndex;
  }

  /** The oldest record that this leader can still send. */
  get #oldestIndex(): number {
    const { log, settings } = this.#state;
    const { olderRecords } = settings;
    if (olderRecords === undefined) return log.firstIndex;
    return Math.min(log.firstIndex, Math.max(olderRecords.firstIndex, this.#readableFrom));
  }

  /**
   * Reads record `index` from the durable log to `memory.bytes[at ...]`, stamped for the wire. Its bytes, or 0:
   * it cannot be read now. One that the disk has harmed is not sent on: whoever lacks it begins its log behind it.
   */
  readToShip(index: LogIndex, memory: RecordMemory, at: number): number {
    const { settings } = this.#state;
    const length = settings.olderRecords?.read(index, memory, at) ?? 0;
    if (length === 0) return 0;
    if (!recordIsIntact(memory, at, length, settings.crc32c) || recordIndex(memory, at) !== index) {
      this.#readableFrom = index + 1;
      return 0;
    }
    this.stampToShip(memory, at);
    return length;
  }

  /** Inherited records go out under the own term; own ones are sent exactly as they were appended. */
  offsetToShip(index: LogIndex): number {
    const { log, term } = this.#state;
    const at = log.offsetAt(index);
    if (recordWriterTerm(log.memory, at) !== term) this.stampToShip(log.memory, at);
    return at;
  }

  stampToShip(memory: RecordMemory, at: number): void {
    const { term, commitIndex, settings } = this.#state;
    stampRecord(memory, at, term, commitIndex, settings.crc32c);
  }

  shipped(peer: ReplicaId, index: LogIndex): void {
    this.#next[peer] = index + 1;
  }

  /** Cheap when nothing changed: looks at one word. False: nothing new, or torn. */
  readAck(peer: ReplicaId, source: Uint8Array, at: number): boolean {
    if (this.#state.role !== 'leader') return false;
    const word = blockWord(source, at);
    if (word === this.#ackWords[peer]) return false;
    if (!readAckBlock(this.#ack, source, at, this.#scratch, this.#state.settings.crc32c)) return false;
    this.#ackWords[peer] = word;
    this.receiveAck(peer, this.#ack);
    return true;
  }

  receiveAck(peer: ReplicaId, ack: Ack): void {
    const state = this.#state;
    if (state.role !== 'leader' || ack.term !== state.term) return;
    if (ack.processNumber !== this.#processNumbers[peer]) return;
    this.#heardUs[peer] = state.watchUs;
    this.#incarnations[peer] = ack.incarnation;
    this.#valid[peer] = ack.valid ? 1 : 0;
    this.#noteEcho(peer, ack.echo);
    this.#noteReceived(peer, ack.received);
    if (ack.index <= (this.#match[peer] ?? 0) || ack.index > state.log.lastIndex) return;
    // A record dropped here is committed; any other must be the very record that this log holds.
    const provable = ack.index >= state.log.firstIndex - 1;
    if (provable && state.log.checksumAt(ack.index) !== ack.checksum) return;
    this.#match[peer] = ack.index;
    this.evaluateCommit();
  }

  /**
   * That a put was completed does not mean that it arrived. A peer that answers heartbeats, but for a while
   * neither gets what was put nor makes room for more, is asked for a fresh region, to be filled with all it
   * lacks.
   */
  #noteReceived(peer: ReplicaId, received: LogIndex): void {
    const { watchUs, log } = this.#state;
    const next = this.#next[peer] ?? 0;
    const moved = received !== this.#received[peer] || next !== this.#stalledNext[peer];
    if (received >= log.lastIndex || moved) this.#stalledUs[peer] = watchUs;
    this.#received[peer] = received;
    this.#stalledNext[peer] = next;
    if (watchUs - (this.#stalledUs[peer] ?? 0) >= this.#state.silence.timeoutUs) this.forgetRegion(peer);
  }

  #noteEcho(peer: ReplicaId, counter: number): void {
    if (counter === 0 || counter > this.heartbeatCounter) return;
    if (this.heartbeatCounter - counter >= BEATS_REMEMBERED) return;
    const sentUs = this.#beatUs[counter % BEATS_REMEMBERED] ?? 0;
    if (sentUs > (this.#echoUs[peer] ?? 0)) this.#echoUs[peer] = sentUs;
  }

  evaluateCommit(): void {
    const state = this.#state;
    if (state.role !== 'leader') return;
    this.#match[state.self] = state.durableIndex;
    const index = this.committable(state.membership.majorityReaches(this.#match) as LogIndex);
    if (index > state.commitIndex) {
      state.advanceCommit(index);
      this.#commitDue = true;
      // Whoever has removed itself leads until that is committed, by a majority that it no longer counts in.
      const { membership } = state;
      if (!membership.isVoter(state.self) && membership.newestIndex <= index) state.becomeFollower();
    }
  }

  /** Of what a majority holds, only what is of the own term, or precedes it, is safe from any later leader. */
  committable(held: LogIndex): LogIndex {
    const { log, term, commitIndex } = this.#state;
    return held > commitIndex && log.termAt(held) === term ? held : commitIndex;
  }

  /** `missedUs`: how long this replica has not looked at all. */
  tick(missedUs: number): void {
    const state = this.#state;
    const { heartbeatIntervalUs } = state.settings.times;
    if (missedUs >= state.settings.times.silenceUsMin) this.#askWhetherDeposed();
    if (this.#progress && state.nowUs - this.#lastBeatUs >= heartbeatIntervalUs) this.#sendBeat();
    if (missedUs > 0 || state.nowUs - this.#tendedUs >= heartbeatIntervalUs / TENDINGS_PER_BEAT) this.#tend();
  }

  /** What takes its time, and need not be looked at in each pass: those are a microsecond apart. */
  #tend(): void {
    const state = this.#state;
    this.#tendedUs = state.nowUs;
    for (const peer of state.membership.all) {
      if (peer === state.self) continue;
      // Nobody may be left to answer there: a new process, which knows no member, waits to be spoken to.
      if (state.watchUs - (this.#heardUs[peer] ?? 0) >= 2 * this.#answerUsMax) this.#keys[peer] = undefined;
      this.#announceTo(peer);
      if (this.#keys[peer] !== undefined && (this.#next[peer] ?? 0) < this.#oldestIndex) this.#rebase(peer);
    }
    this.#noteMajorityEcho();
    if (state.watchUs - this.#echoSinceUs >= this.#answerUsMax) state.becomeFollower();
  }

  /** When `tick` has something to do next: the heartbeat, and all that is looked after as often. */
  get deadlineUs(): number {
    const { nowUs, settings } = this.#state;
    const beatUs = this.#lastBeatUs + settings.times.heartbeatIntervalUs;
    return this.#progress && beatUs > nowUs ? beatUs : nowUs + settings.times.heartbeatIntervalUs;
  }

  #noteMajorityEcho(): void {
    this.#echoUs[this.#state.self] = Infinity;
    // A majority has answered a heartbeat that was sent at this time or later.
    const majorityEchoUs = this.#state.membership.majorityReaches(this.#echoUs);
    // Whoever is alone needs no answer.
    if (majorityEchoUs <= this.#majorityEchoUs && majorityEchoUs !== Infinity) return;
    this.#majorityEchoUs = majorityEchoUs;
    this.#echoSinceUs = this.#state.watchUs;
    this.#state.silence.heard(this.#state.watchUs);
  }

  /** How long whoever is there may leave a heartbeat without an answer. */
  get #answerUsMax(): number {
    const { stepDownUs } = this.#state.settings.times;
    const { timeoutUs } = this.#state.silence;
    return timeoutUs > stepDownUs ? timeoutUs : stepDownUs;
  }

  /** Whoever stood still for long may have a successor: it answers at once. */
  #askWhetherDeposed(): void {
    const state = this.#state;
    for (const peer of state.membership.all) {
      if (peer !== state.self) state.send(peer, { kind: MessageKind.newerTerm });
    }
  }

  #sendBeat(): void {
    this.heartbeatCounter++;
    this.#beatUs[this.heartbeatCounter % BEATS_REMEMBERED] = this.#state.nowUs;
    this.#lastBeatUs = this.#state.nowUs;
    this.#progress = false;
    this.#beatDue = true;
  }

  get heartbeatDue(): boolean {
    return this.#beatDue || this.#commitDue;
  }

  heartbeatWritten(): void {
    this.#beatDue = false;
    this.#commitDue = false;
  }

  #announceTo(peer: ReplicaId): void {
    const state = this.#state;
    if (this.#keys[peer] !== undefined) return;
    const intervalUs = 2 * state.settings.times.heartbeatIntervalUs;
    if (state.nowUs - (this.#announcedUs[peer] ?? 0) < intervalUs) return;
    this.#announcedUs[peer] = state.nowUs;
    // The number tells the peer whether its key got lost on the way here or its memory is lost to us.
    const regionNumber = this.#regionNumbers[peer] ?? 0;
    state.send(peer, {
      kind: MessageKind.announce,
      regionNumber,
      toProcess: this.processOf(peer),
      key: state.ackMemoryKey,
    });
  }

  /** Nothing here holds what this peer lacks: its log is to begin where that of this leader does now. */
  #rebase(peer: ReplicaId): void {
    const state = this.#state;
    if (state.nowUs - (this.#announcedUs[peer] ?? 0) < 2 * state.settings.times.heartbeatIntervalUs) return;
    this.#announcedUs[peer] = state.nowUs;
    const index = (state.log.firstIndex - 1) as LogIndex;
    state.send(peer, {
      kind: MessageKind.rebase,
      toProcess: this.processOf(peer),
      lastIndex: index,
      lastTerm: state.log.termAt(index),
      lastChecksum: state.log.checksumAt(index),
      executing: state.executing.committed(state.commitIndex),
      members: state.membership.committed(state.commitIndex),
    });
  }

  progress(): void {
    this.#progress = true;
  }

  /**
   * A leader that looks steps down by then, unless a majority answers; this is for one that does not look, frozen or
   * starved, whose guest goes on. No promise rests on it.
   */
  get leaseEndUs(): number {
    return Math.max(this.#majorityEchoUs, this.#beganUs) + this.#answerUsMax;
  }

  writeHeartbeat(memory: RecordMemory, at: number): void {
    writeHeartbeatBlock(this.currentHeartbeat(), memory, at, this.#state.settings.crc32c);
  }

  /** One object, overwritten by the next call. */
  currentHeartbeat(): Heartbeat {
    const beat = this.#beat;
    beat.term = this.#state.term;
    beat.counter = this.heartbeatCounter;
    beat.commitIndex = this.#state.commitIndex;
    return beat;
  }

  matchOf(peer: ReplicaId): LogIndex {
    return (this.#match[peer] ?? 0) as LogIndex;
  }

  /** The process of this peer that was heard last. */
  processOf(peer: ReplicaId): number {
    return this.#processNumbers[peer] ?? 0;
  }

  /** Answered lately, and has a guest that the newest executing set names. */
  peerMayServe(peer: ReplicaId): boolean {
    const state = this.#state;
    return (
      this.#valid[peer] === 1 &&
      this.peerIsReachable(peer) &&
      setHolds(state.executing.newest, peer, this.#incarnations[peer] ?? 0)
    );
  }

  peerIsReachable(peer: ReplicaId): boolean {
    return this.#state.nowUs - (this.#echoUs[peer] ?? -Infinity) < this.#answerUsMax;
  }

  /** Where the payload of the next record goes, or -1 when the log has no room. */
  reserve(payloadBytes: number, type: number): number {
    const state = this.#state;
    const length = recordBytesFor(payloadBytes);
    return state.makeRoom(length, type) ? state.log.room(length) + RECORD_HEADER_BYTES : -1;
  }

  /** Seals the payload at `payloadAt` (from `reserve`) as the next record. Returns its index, or 0. */
  append(payloadAt: number, type: number, count: number, payloadBytes: number): LogIndex {
    const state = this.#state;
    const { log } = state;
    const at = payloadAt - RECORD_HEADER_BYTES;
    const index = (log.lastIndex + 1) as LogIndex;
    const { lastTerm, lastChecksum } = log;
    const { term, commitIndex, settings } = state;
    const checksum = encodeRecord(
      log.memory, at, term, index, lastTerm, lastChecksum, commitIndex, type, count, payloadBytes,
      settings.crc32c,
    ); // prettier-ignore
    if (!log.append(at, recordBytesFor(payloadBytes), term, checksum)) return 0 as LogIndex;
    // The record tells it. Whoever does not get it soon is told by a heartbeat that is due anyway.
    this.#commitDue = false;
    state.noteAppended();
    state.matchedIndex = index;
    if (settings.durability === 'memory') this.evaluateCommit();
    return index;
  }

  appendMembers(members: Members): LogIndex {
    const payloadAt = this.reserve(membersBytes(members), RecordType.membership);
    if (payloadAt === -1) return 0 as LogIndex;
    encodeMembers(members, this.#state.log.memory.view, payloadAt);
    return this.append(payloadAt, RecordType.membership, memberCount(members), membersBytes(members));
  }

  appendExecutingSet(type: number, set: ExecutingSet): LogIndex {
    const payloadAt = this.reserve(executingSetBytes(set), type);
    if (payloadAt === -1) return 0 as LogIndex;
    encodeExecutingSet(set, this.#state.log.memory.view, payloadAt);
    return this.append(payloadAt, type, set.length, executingSetBytes(set));
  }
}
