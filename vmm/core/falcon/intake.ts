/**
 * The backup's side of the normal case: takes records out of the leader's region, and says by its ack how
 * far its log is both equal to the leader's and durable. A record is the next one only if its checksums
 * hold, its writer's term is the current one, and it continues exactly the record the log ends with.
 */
import type { LogIndex, ReplicaId, Term } from '../ids.ts';
import { invariant } from '../invariant.ts';
import { MessageKind } from './control-message.ts';
import {
  recordChecksum,
  recordCommitIndex,
  recordIndex,
  recordIsIntact,
  recordMemory,
  recordOriginTerm,
  recordPreviousChecksum,
  recordPreviousTerm,
  recordType,
  recordWriterTerm,
  type RecordMemory,
} from './record.ts';
import { Ack, blockWord, Heartbeat, HEARTBEAT_BYTES, readHeartbeatBlock, writeAckBlock } from './signal.ts';
import type { ReplicaState } from './state.ts';

/** What became of the bytes given to `receiveRecord`. */
export const IntakeResult = {
  /** Appended. */
  taken: 1,
  /** Was here already. */
  held: 2,
  /** Not one whole record: not there yet, or harmed on its way. */
  harmed: 3,
  /** From another term than the current one. */
  stale: 4,
  /** Does not continue the log; the leader was asked to begin again behind the commit index. */
  gap: 5,
  /** The log is full of records that may not be dropped yet: offer it again later. */
  noRoom: 6,
} as const;

export class RecordIntake {
  readonly #state: ReplicaState;
  readonly #ack = new Ack();
  readonly #beat = new Heartbeat();
  readonly #scratch: RecordMemory = recordMemory(new Uint8Array(HEARTBEAT_BYTES));
  #resyncAskedUs = -Infinity;

  constructor(state: ReplicaState) {
    this.#state = state;
  }

  receiveRecord(source: Uint8Array, offset: number, length: number): number {
    const state = this.#state;
    const { log, settings } = state;
    if (length > log.limits.recordBytesMax || offset + length > source.length) return IntakeResult.harmed;
    const at = log.stage(source, offset, length);
    const { memory } = log;
    if (!recordIsIntact(memory, at, length, settings.crc32c)) return IntakeResult.harmed;
    if (state.region.status !== 'open' || state.region.term !== state.term) return IntakeResult.stale;
    if (recordWriterTerm(memory, at) !== state.term) return IntakeResult.stale;
    const commitIndex = recordCommitIndex(memory, at);
    const result = this.#take(at, length);
    if (result === IntakeResult.taken || result === IntakeResult.held) {
      state.heardLeader(state.region.writer);
      state.ackDue = true;
      this.#learnCommit(commitIndex);
    }
    return result;
  }

  #take(at: number, length: number): number {
    const state = this.#state;
    const { log } = state;
    const { memory } = log;
    const index = recordIndex(memory, at);
    const term = recordOriginTerm(memory, at);
    const checksum = recordChecksum(memory, at);
    const type = recordType(memory, at);
    if (index <= state.commitIndex) {
      const known = index >= log.firstIndex - 1;
      invariant(
        !known || log.matches(index, term, checksum),
        'a leader sends the committed record that is here',
      );
      return IntakeResult.held;
    }
    if (log.matches(index, term, checksum)) {
      if (index > state.matchedIndex) state.matchedIndex = index;
      return IntakeResult.held;
    }
    const before = (index - 1) as LogIndex;
    if (!log.matches(before, recordPreviousTerm(memory, at), recordPreviousChecksum(memory, at))) {
      this.askResync();
      return IntakeResult.gap;
    }
    if (index <= log.lastIndex) state.truncateTo(before);
    if (!state.makeRoom(length, type) || !log.append(at, length, term, checksum)) return IntakeResult.noRoom;
    state.noteAppended();
    state.matchedIndex = index;
    return IntakeResult.taken;
  }

  /** Asks the leader to send again what lies behind the commit index; not more often than heartbeats come. */
  askResync(): void {
    const state = this.#state;
    if (state.region.status !== 'open') return;
    if (state.nowUs - this.#resyncAskedUs < state.settings.times.heartbeatIntervalUs) return;
    this.#resyncAskedUs = state.nowUs;
    state.send(state.region.writer, { kind: MessageKind.resync, regionNumber: state.region.number });
  }

  /** Cheap when nothing changed: looks at one word. False: nothing new, or torn. */
  readHeartbeat(from: ReplicaId, source: Uint8Array, at: number): boolean {
    const { region, settings } = this.#state;
    const word = blockWord(source, at);
    if (word === region.heartbeatWord) return false;
    const beat = this.#beat;
    if (!readHeartbeatBlock(beat, source, at, this.#scratch, settings.crc32c)) return false;
    region.heartbeatWord = word;
    this.receiveHeartbeat(from, beat.term, beat.counter, beat.commitIndex);
    return true;
  }

  receiveHeartbeat(from: ReplicaId, term: Term, counter: number, commitIndex: LogIndex): void {
    const state = this.#state;
    const { region } = state;
    if (region.status !== 'open' || region.writer !== from) return;
    if (region.term !== state.term || term !== state.term) return;
    if (counter > region.heartbeatCounter) {
      if (region.heartbeatCounter === 0) state.silence.restart();
      state.silence.heard(state.watchUs);
      region.heartbeatCounter = counter;
      state.heardLeader(from);
      state.ackDue = true;
    }
    if (commitIndex > region.commitIndex) region.commitIndex = commitIndex;
    this.#learnCommit(commitIndex);
  }

  /** Only what is known to equal the leader's log is covered by the leader's word, its newest or an earlier one. */
  #learnCommit(leaderCommitIndex: LogIndex): void {
    const { matchedIndex, region } = this.#state;
    const told = leaderCommitIndex > region.commitIndex ? leaderCommitIndex : region.commitIndex;
    this.#state.advanceCommit(told < matchedIndex ? told : matchedIndex);
  }

  /** Up to here the log is the leader's and durable: nothing beyond is ever acknowledged. */
  ackIndex(): LogIndex {
    const { matchedIndex, durableIndex } = this.#state;
    return matchedIndex < durableIndex ? matchedIndex : durableIndex;
  }

  /** Writes the 48-byte ack block for the leader's memory. */
  writeAck(memory: RecordMemory, at: number): void {
    writeAckBlock(this.currentAck(), memory, at, this.#state.settings.crc32c);
  }

  /** One object, overwritten by the next call. */
  currentAck(): Ack {
    const state = this.#state;
    const ack = this.#ack;
    const index = this.ackIndex();
    ack.term = state.term;
    ack.index = index;
    // What was dropped is committed, and a committed record needs no proof.
    ack.checksum = index >= state.log.firstIndex - 1 ? state.log.checksumAt(index) : 0;
    ack.received = state.matchedIndex;
    ack.echo = state.region.heartbeatCounter;
    ack.incarnation = state.executorIncarnation;
    ack.valid = state.executorValid;
    ack.processNumber = state.settings.processNumber;
    return ack;
  }
}
