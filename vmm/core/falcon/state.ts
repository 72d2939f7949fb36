/**
 * What the parts of one replica share: its log, its term, its role, and the few transitions that several of
 * them make. Whoever changes the term goes through `raiseTerm`, so that a vote, a role and a region of an
 * older term never outlive it.
 */
import { NO_REPLICA, TERM_MAX, type LogIndex, type ReplicaId, type Term } from '../ids.ts';
import { invariant } from '../invariant.ts';
import { CONTROL_BYTES_MAX, encodeControlMessage, type ControlMessage } from './control-message.ts';
import { decodeExecutingSet, ExecutingHistory, setHolds } from './executing-set.ts';
import { FalconLog } from './log.ts';
import { decodeMembers, Membership, type Members } from './membership.ts';
import { ReadRegion } from './read-region.ts';
import { RECORD_HEADER_BYTES, recordCount, recordType } from './record.ts';
import { RecordType } from './record-type.ts';
import { SilenceDetector } from './silence-detector.ts';
import type { FalconSettings, LogBase } from './settings.ts';

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';

export interface OutboundMessage {
  readonly to: ReplicaId;
  readonly bytes: Uint8Array;
}

/** Named maximum of messages waiting for the shell; what comes on top is dropped, as a network may. */
const OUTBOX_MESSAGES_MAX = 256;
/** Records that an application record leaves room for: terms that come and go before one commits anything. */
const SPARE_RECORDS = 64;
const NO_KEY: Uint8Array = new Uint8Array(0);

/** What a message says beyond who sends it, to whom and when. */
export type MessageFields = Partial<
  Omit<ControlMessage, 'from' | 'to' | 'processNumber' | 'instance' | 'term'>
> & {
  readonly kind: number;
};

export class ReplicaState {
  readonly settings: FalconSettings;
  /** Drawn once: tells two processes under one replica id apart. Unsigned 32 bits. */
  readonly instance: number;
  readonly log: FalconLog;
  readonly membership: Membership;
  readonly executing: ExecutingHistory;
  readonly region = new ReadRegion();

  term: Term;
  votedFor: ReplicaId;
  /** Invariant: while true, no message leaves and the own vote does not count. */
  hardStateDirty = false;

  role: Role = 'follower';
  leader: ReplicaId = NO_REPLICA;
  nowUs = 0;
  /**
   * Time for which this replica has been watching: the clock, but what passed between two looks counts only up to
   * a few heartbeats. A replica that was not given a processor for a while has heard no silence meanwhile.
   */
  watchUs = 0;
  /** How long others may be silent, by what was heard of the leader, or of a majority when leading. */
  readonly silence: SilenceDetector;
  /** In watched time. */
  electionTimerStartUs = 0;
  /** Drawn anew for every election, so that two replicas do not stand together again and again. */
  electionSpreadUs = 0;
  /** When the leader was heard last, by the clock, and in watched time. */
  leaderContactUs = 0;
  #leaderWatchUs = 0;
  /** The shell knows for certain that the leader's process ended. */
  leaderGone = false;
  /** No silence need be waited for before standing: the leader is gone, or whoever asked for a vote cannot win. */
  waitsNoLonger = false;

  /** Invariant: never falls, and never passes what this replica knows to be equal to the leader's log. */
  commitIndex: LogIndex;
  appliedIndex: LogIndex;
  /** All records up to here are as durable here as the setting demands. */
  durableIndex: LogIndex;
  /** Next record that the shell has to write to disk. */
  persistCursor: LogIndex;
  /** Counts truncations: a completion from before one says nothing about what was written since. */
  persistEpoch = 0;
  /** Backup: the log is known to equal the leader's up to here. Invariant: >= commitIndex while following. */
  matchedIndex: LogIndex;
  ackDue = false;
  /** Where the log began anew. Invariant: until the shell takes it, no ack and no message leaves. */
  rebasedIndex: LogIndex | undefined;
  /** Invariant: while true, this replica votes for nobody and stands for nothing. */
  logLost: boolean;
  /** Where the log is no longer lost, as the leader of this term said. */
  levelAtIndex: LogIndex | undefined;

  executorIncarnation = 0;
  executorValid = false;
  /** Where backups put their acks for this replica, when it leads; opaque. */
  ackMemoryKey = NO_KEY;
  /** Where this replica puts its acks, as its leader said; opaque. */
  leaderAckKey = NO_KEY;

  readonly #outbox: OutboundMessage[] = [];

  constructor(settings: FalconSettings) {
    const { base } = settings;
    this.settings = settings;
    this.log = new FalconLog(settings.logLimits, settings.copyBytes);
    this.log.resetTo(base.index, base.term, base.checksum);
    this.instance = Math.floor(settings.random() * 0x1_0000_0000);
    this.membership = new Membership(
      { voters: settings.voters, nonVoters: settings.nonVoters ?? [] },
      base.index,
    );
    this.executing = new ExecutingHistory(base.executing);
    this.executing.resetTo(base.index, base.executing);
    this.term = settings.hardState.term;
    this.votedFor = settings.hardState.votedFor;
    this.commitIndex = base.index;
    this.appliedIndex = base.index;
    this.durableIndex = base.index;
    this.matchedIndex = base.index;
    this.persistCursor = (base.index + 1) as LogIndex;
    this.logLost = settings.logLost === true;
    this.silence = new SilenceDetector(settings.times);
  }

  /** Longest time between two looks that counts in full. */
  get lookGapUs(): number {
    return 2 * this.settings.times.heartbeatIntervalUs;
  }

  /** Time passes. Returns how much of it was not watched. */
  look(nowUs: number): number {
    const elapsedUs = nowUs - this.nowUs;
    if (elapsedUs <= 0) return 0;
    const { lookGapUs } = this;
    this.nowUs = nowUs;
    if (elapsedUs <= lookGapUs) {
      this.watchUs += elapsedUs;
      return 0;
    }
    this.watchUs += lookGapUs;
    return elapsedUs - lookGapUs;
  }

  get self(): ReplicaId {
    return this.settings.self;
  }

  /** True when this replica, with the guest it has now, may serve by the newest set that its log holds. */
  get eligible(): boolean {
    return this.executorValid && setHolds(this.executing.newest, this.self, this.executorIncarnation);
  }

  /** A leader was heard so lately that a vote against it would only do harm. */
  get leaderIsFresh(): boolean {
    return !this.leaderGone && this.watchUs - this.#leaderWatchUs < this.silence.timeoutUs;
  }

  /** Enters a newer term as a follower that has voted for nobody. */
  raiseTerm(term: Term): void {
    invariant(term > this.term && term <= TERM_MAX, 'a term only rises, and fits 31 bits');
    this.term = term;
    this.votedFor = NO_REPLICA;
    this.hardStateDirty = true;
    this.region.close();
    this.matchedIndex = this.commitIndex;
    this.leader = NO_REPLICA;
    this.leaderAckKey = NO_KEY;
    this.levelAtIndex = undefined;
    this.becomeFollower();
  }

  /** Gives up leading or standing; the term stays. */
  becomeFollower(): void {
    if (this.role === 'follower') return;
    if (this.leader === this.self) this.leader = NO_REPLICA;
    this.role = 'follower';
    this.restartElectionTimer();
  }

  heardLeader(leader: ReplicaId): void {
    this.leader = leader;
    this.leaderGone = false;
    this.waitsNoLonger = false;
    this.leaderContactUs = this.nowUs;
    this.#leaderWatchUs = this.watchUs;
    this.electionTimerStartUs = this.watchUs;
    if (this.role !== 'follower') this.becomeFollower();
  }

  restartElectionTimer(): void {
    this.waitsNoLonger = false;
    this.electionTimerStartUs = this.watchUs;
    this.electionSpreadUs = this.settings.random() * this.settings.times.electionSpreadUs;
  }

  /** In watched time. Executing members stand first: who may not execute waits longer. */
  get electionDeadlineUs(): number {
    const extraUs = this.eligible ? 0 : this.settings.times.standbyExtraUs;
    if (this.waitsNoLonger) return this.electionTimerStartUs + extraUs;
    return this.electionTimerStartUs + this.silence.timeoutUs + this.electionSpreadUs + extraUs;
  }

  /** Whether a log that ends so would lose nothing that this one may have committed. */
  logIsUpToDate(lastTerm: Term, lastIndex: LogIndex): boolean {
    const ownTerm = this.log.lastTerm;
    return lastTerm > ownTerm || (lastTerm === ownTerm && lastIndex >= this.log.lastIndex);
  }

  truncateTo(index: LogIndex): void {
    invariant(index >= this.commitIndex, 'a committed record is never truncated');
    this.log.truncateTo(index);
    this.executing.truncateTo(index);
    this.membership.truncateTo(index);
    this.persistEpoch++;
    if (this.durableIndex > index) this.durableIndex = index;
    if (this.persistCursor > index + 1) this.persistCursor = (index + 1) as LogIndex;
  }

  /** Takes a committed record that the leader has dropped as the one the log begins behind. */
  rebase(base: LogBase, members: Members): void {
    const { index, term, checksum, executing } = base;
    invariant(index > this.commitIndex, 'a log is only rebased forwards');
    this.log.resetTo(index, term, checksum);
    this.executing.resetTo(index, executing);
    this.membership.resetTo(index, members);
    this.rebasedIndex = index;
    this.commitIndex = index;
    this.appliedIndex = index;
    this.durableIndex = index;
    this.matchedIndex = index;
    this.persistCursor = (index + 1) as LogIndex;
    this.persistEpoch++;
    this.executorValid = false;
    this.ackDue = true;
  }

  /** Takes note of the record that was just appended. */
  noteAppended(): void {
    const { log } = this;
    const index = log.lastIndex;
    const at = log.offsetAt(index);
    const type = recordType(log.memory, at);
    if (type === RecordType.termStart || type === RecordType.executingSet) {
      const count = recordCount(log.memory, at);
      this.executing.append(index, decodeExecutingSet(log.memory.view, at + RECORD_HEADER_BYTES, count));
    }
    if (type === RecordType.membership) {
      const count = recordCount(log.memory, at);
      this.membership.append(index, decodeMembers(log.memory.view, at + RECORD_HEADER_BYTES, count));
    }
    if (this.settings.durability === 'memory') this.durableIndex = index;
  }

  /**
   * Whether a record of `bytes` finds room; the oldest go for it, but only what is committed, applied and on
   * disk where it must be. A record of the application leaves room for one of the core's behind it: without
   * the first record of its term no leader could commit anything, and so never drop anything either.
   */
  makeRoom(bytes: number, type: number): boolean {
    const { log } = this;
    if (bytes > log.limits.recordBytesMax) return false;
    const application = type >= RecordType.firstOfApplication;
    const spareBytes = application ? log.limits.recordBytesMax : 0;
    const upTo = Math.min(this.commitIndex, this.appliedIndex, this.durableIndex);
    return log.makeRoom(bytes + spareBytes, application ? SPARE_RECORDS : 1, upTo as LogIndex);
  }

  advanceCommit(index: LogIndex): void {
    if (index <= this.commitIndex) return;
    invariant(index <= this.log.lastIndex, 'what is committed is in the log');
    this.commitIndex = index;
    if (this.executing.forgetBefore(index)) this.#noteExecutors();
    this.membership.forgetBefore(index);
  }

  #noteExecutors(): void {
    if (this.executing.committed(this.commitIndex).length > 1) this.silence.settled();
    else this.silence.unsettled();
  }

  send(to: ReplicaId, fields: MessageFields): void {
    if (this.#outbox.length >= OUTBOX_MESSAGES_MAX) return;
    const message: ControlMessage = {
      electionTerm: this.term,
      granted: false,
      handOver: false,
      regionNumber: 0,
      toProcess: 0,
      lastIndex: this.log.lastIndex,
      lastTerm: this.log.lastTerm,
      lastChecksum: this.log.lastChecksum,
      commitIndex: this.commitIndex,
      executing: [],
      members: undefined,
      key: NO_KEY,
      ...fields,
      from: this.self,
      to,
      processNumber: this.settings.processNumber,
      instance: this.instance,
      term: this.term,
    };
    const bytes = encodeControlMessage(message, this.settings.hardState.clusterId, this.settings.crc32c);
    invariant(bytes.length <= CONTROL_BYTES_MAX, 'a control message fits its maximum');
    this.#outbox.push({ to, bytes });
  }

  /** Nothing leaves before the term, the vote and the beginning of the log it rests on are durable. */
  takeMessage(): OutboundMessage | undefined {
    return this.hardStateDirty || this.rebasedIndex !== undefined ? undefined : this.#outbox.shift();
  }
}
