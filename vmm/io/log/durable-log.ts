/**
 * The durable log of one replica: takes records in the order of its log, and says up to where they are on disk.
 *
 * Invariants: records are written in the order in which they were taken, one behind the other, over zeros; a record
 * whose index is not the next one is preceded by a mark that truncates (segment-format.ts). After a failed write or
 * sync every call throws: the replica must stop, and the disk is not asked again.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  recordChecksum,
  recordIndex,
  recordMemory,
  recordOriginTerm,
  recordPreviousChecksum,
  recordPreviousTerm,
  type RecordMemory,
} from '../../core/falcon/record.ts';
import type { LogIndex, Term } from '../../core/ids.ts';
import { invariant } from '../../core/invariant.ts';
import { takeLock, type LockFile } from '../lock-file.ts';
import { logFailure, LogFullError, LogRefusedError } from './log-errors.ts';
import { LogReader, type ReadableSegment } from './log-reader.ts';
import { RecordPositions } from './record-positions.ts';
import { recoverLog } from './recovery.ts';
import {
  BASE_OFFSET,
  BaseKind,
  encodeBase,
  encodeMark,
  ENTRIES_OFFSET,
  MARK_BYTES,
  MarkKind,
  type LogBaseState,
} from './segment-format.ts';
import { SegmentStore, type Segment, type SegmentStoreOptions } from './segment-store.ts';
import type { SegmentWriter } from './segment-writer.ts';

/** Writes that the writer may hold at once, and more: a power of two. */
const ticketsMax = 16_384;

/** The folder is private to this log, and made if it is not there. */
export interface DurableLogOptions extends SegmentStoreOptions {
  /** What a log that is not there yet begins behind. */
  readonly firstBase: LogBaseState;
  /** Who executes and who belongs to the cluster behind record `index`. */
  readonly stateAt: (index: LogIndex) => Pick<LogBaseState, 'executing' | 'members'>;
}

/** Hears what was found, in order; a truncation takes back what was heard before. */
export interface LogRestorer {
  /** `found`: there was a log, rather than that one is begun here. */
  begin(base: LogBaseState, found: boolean): void;
  record(memory: RecordMemory, at: number, length: number): void;
  truncated(index: LogIndex): void;
}

export class DurableLog {
  readonly #options: DurableLogOptions;
  readonly #writer: SegmentWriter;
  readonly #lock: LockFile;
  readonly #store: SegmentStore;
  readonly #positions = new RecordPositions();
  readonly #reader: LogReader;
  #wantsSegment = false;
  #lastIndex = 0 as LogIndex;
  #lastTerm = 0 as Term;
  #lastChecksum = 0;
  #epoch = 0;
  /** Writes handed over, how many of them are to be durable soon, and how many are. */
  #tickets = 0;
  #owedTickets = 0;
  #durableTickets = 0;
  readonly #ticketIndexes = new Float64Array(ticketsMax);
  readonly #ticketEpochs = new Float64Array(ticketsMax);
  readonly #ticketSequences = new Float64Array(ticketsMax);
  readonly #ticketOffsets = new Float64Array(ticketsMax);
  #durableIndex = 0 as LogIndex;
  #durableEpoch = 0;
  /** The place that the next claim names, and whether one has named it. */
  #durableSequence = 0;
  #durableOffset = 0;
  #claimed = true;
  readonly #mark = recordMemory(new Uint8Array(MARK_BYTES));

  /** All up to here is committed and on disk, and no restart needs it: it may go when room is short. */
  superfluousIndex = 0;
  /** There was a log, rather than that one was begun. */
  readonly found: boolean;
  /** Bytes that were cut off its end as torn. */
  readonly cutBytes: number;

  /** Takes up the log in the folder, or begins one. Throws a LogRefusedError, or the disk's own error. */
  constructor(options: DurableLogOptions, writer: SegmentWriter, restorer: LogRestorer) {
    this.#options = options;
    this.#writer = writer;
    this.#lock = lockFolder(options.folder);
    try {
      const { segments, cutBytes } = this.#recover(restorer);
      this.#store = new SegmentStore(options, writer, segments);
      this.#reader = new LogReader(this.#positions, (sequence) => this.#readable(sequence));
      this.found = !this.#store.isEmpty;
      this.cutBytes = cutBytes;
      if (this.found) {
        this.#durableSequence = this.#store.current.sequence;
        this.#durableOffset = this.#store.current.endOffset;
        this.#claimed = false;
      } else {
        this.beginAnew(options.firstBase, 0);
        restorer.begin(options.firstBase, false);
      }
      this.#store.prepareNext();
    } catch (error) {
      this.#lock.release();
      throw error;
    }
  }

  #recover(restorer: LogRestorer): { readonly segments: Segment[]; readonly cutBytes: number } {
    const { folder, identity, crc32c } = this.#options;
    const floors = new Map<number, number>();
    let sequence = 0;
    const recovered = recoverLog(folder, identity, crc32c, {
      segment: (header, base) => {
        if (sequence === 0) restorer.begin(base, true);
        sequence = header.sequence;
      },
      record: (memory, at, length, index) => {
        this.#positions.note(index, sequence, at);
        restorer.record(memory, at, length);
      },
      truncated: (index) => {
        this.#positions.truncateTo(index);
        floors.set(sequence, Math.min(index, floors.get(sequence) ?? Infinity));
        restorer.truncated(index);
      },
    });
    this.#setLast(recovered.lastIndex, recovered.lastTerm, recovered.lastChecksum);
    this.#durableIndex = recovered.lastIndex;
    const segments = recovered.segments.map(({ file, fd, header, base, endOffset }) => ({
      ...{ file, fd, base, endOffset, sequence: header.sequence, nonce: header.nonce },
      floorIndex: floors.get(header.sequence) ?? Infinity,
    }));
    return { segments, cutBytes: recovered.cutBytes };
  }

  // Taking records -------------------------------------------------------------------------------------

  /** The last record that was taken. */
  get lastIndex(): LogIndex {
    return this.#lastIndex;
  }

  #setLast(index: LogIndex, term: Term, checksum: number): void {
    this.#lastIndex = index;
    this.#lastTerm = term;
    this.#lastChecksum = checksum;
  }

  /**
   * Takes the record at `at`; the bytes are copied. One that is not the next takes the place of the one that was
   * taken under its index, and all behind that are void. `epoch` comes back as `durableEpoch`. False: no room now.
   */
  append(memory: RecordMemory, at: number, length: number, epoch: number): boolean {
    this.#throwFailure();
    const index = recordIndex(memory, at);
    invariant(index <= this.#lastIndex + 1, 'the durable log has no gap');
    this.#epoch = epoch;
    if (index <= this.#lastIndex && !this.#truncateBefore(memory, at)) return false;
    const continues =
      recordPreviousTerm(memory, at) === this.#lastTerm &&
      recordPreviousChecksum(memory, at) === this.#lastChecksum;
    invariant(continues, 'a record continues the one that the durable log ends with');
    // The last place of each segment is kept for a mark.
    if (!this.#makeRoom(length + MARK_BYTES)) return false;
    const { current } = this.#store;
    if (!this.#write(current, memory.bytes, at, length, index, true)) return false;
    this.#positions.note(index, current.sequence, current.endOffset - length);
    this.#setLast(index, recordOriginTerm(memory, at), recordChecksum(memory, at));
    return true;
  }

  #truncateBefore(memory: RecordMemory, at: number): boolean {
    const index = (recordIndex(memory, at) - 1) as LogIndex;
    if (!this.#makeRoom(MARK_BYTES)) return false;
    const { current } = this.#store;
    if (!this.#writeMark(current, MarkKind.truncated, index, true)) return false;
    current.floorIndex = Math.min(current.floorIndex, index);
    this.#positions.truncateTo(index);
    this.#reader.forget();
    this.#setLast(index, recordPreviousTerm(memory, at), recordPreviousChecksum(memory, at));
    if (this.#durableIndex > index) this.#durableIndex = index;
    return true;
  }

  #write(
    segment: Segment,
    bytes: Uint8Array,
    at: number,
    length: number,
    index: LogIndex,
    sync: boolean,
  ): boolean {
    if (!this.#writer.write(segment.fd, segment.endOffset, bytes, at, length, sync)) return false;
    segment.endOffset += length;
    this.#noteTicket(segment, index);
    if (sync) this.#owedTickets = this.#tickets;
    return true;
  }

  #noteTicket({ sequence, endOffset }: Segment, index: LogIndex): void {
    const slot = this.#tickets++ % ticketsMax;
    this.#ticketIndexes[slot] = index;
    this.#ticketEpochs[slot] = this.#epoch;
    this.#ticketSequences[slot] = sequence;
    this.#ticketOffsets[slot] = endOffset;
  }

  #writeMark(segment: Segment, kind: number, index: LogIndex, sync: boolean): boolean {
    const { crc32c } = this.#options;
    const { nonce, endOffset } = segment;
    encodeMark(this.#mark, kind, endOffset, nonce, this.#durableSequence, this.#durableOffset, index, crc32c);
    if (!this.#write(segment, this.#mark.bytes, 0, MARK_BYTES, index, sync)) return false;
    this.#claimed = true;
    return true;
  }

  #makeRoom(bytes: number): boolean {
    const { segmentBytes } = this.#options;
    invariant(ENTRIES_OFFSET + bytes <= segmentBytes, 'every record fits into a segment');
    if (this.#store.current.endOffset + bytes <= segmentBytes) return true;
    const index = this.#lastIndex;
    const base = { index, term: this.#lastTerm, checksum: this.#lastChecksum };
    this.#wantsSegment = !this.#rotate({ ...this.#options.stateAt(index), ...base }, BaseKind.continues);
    if (this.#wantsSegment) return false;
    while (this.#store.overLimit && this.#drop(this.superfluousIndex));
    return true;
  }

  #rotate(base: LogBaseState, kind: number): boolean {
    const { prepared } = this.#store;
    if (prepared === undefined) return false;
    const claim = { sequence: this.#durableSequence, offset: this.#durableOffset };
    const bytes = encodeBase({ ...base, kind, claim }, prepared.nonce, this.#options.crc32c);
    if (!this.#writer.write(prepared.fd, BASE_OFFSET, bytes, 0, bytes.length, true)) return false;
    this.#noteTicket(this.#store.takePrepared(base), base.index);
    return true;
  }

  // Room on the disk -----------------------------------------------------------------------------------

  /** A record waits, and the disk has had no room for another segment since `fullSinceUs`. */
  get stuck(): boolean {
    return this.#wantsSegment && this.#store.fullSinceUs !== undefined;
  }

  get fullSinceUs(): number | undefined {
    return this.#store.fullSinceUs;
  }

  /** Gives up the segments that hold only records up to `index`, as a checkpoint has made them superfluous. */
  dropThrough(index: LogIndex): void {
    while (this.#drop(index));
  }

  #drop(index: number): boolean {
    if (!this.#store.dropOldest(index, this.#durableSequence)) return false;
    this.#positions.dropBelow(this.#store.first?.sequence ?? 0);
    this.#reader.forget();
    return true;
  }

  get diskBytes(): number {
    return this.#store.diskBytes;
  }

  // What is durable ------------------------------------------------------------------------------------

  /** Records up to here are durable, as they were taken last with `durableEpoch`. */
  get durableIndex(): LogIndex {
    return this.#durableIndex;
  }

  /** Something that was taken is not durable yet. */
  get owes(): boolean {
    return this.#durableTickets < this.#owedTickets;
  }

  get durableEpoch(): number {
    return this.#durableEpoch;
  }

  /** Readable when `poll` may have something new. */
  get eventFd(): number {
    return this.#writer.eventFd;
  }

  drain(): void {
    this.#writer.drain();
  }

  /** Learns how far the writer has come. True: more is durable than before. */
  poll(nowUs: number): boolean {
    this.#throwFailure();
    this.#store.poll(nowUs);
    if (this.#store.fullSinceUs !== undefined) this.#drop(this.superfluousIndex);
    const more = (this.#writer.durableWrites - this.#durableTickets) >>> 0;
    if (more > 0) {
      this.#durableTickets += more;
      const slot = (this.#durableTickets - 1) % ticketsMax;
      this.#durableIndex = (this.#ticketIndexes[slot] ?? 0) as LogIndex;
      this.#durableEpoch = this.#ticketEpochs[slot] ?? 0;
      this.#durableSequence = this.#ticketSequences[slot] ?? 0;
      this.#durableOffset = this.#ticketOffsets[slot] ?? 0;
      this.#claimed = false;
    }
    this.#claim();
    return more > 0;
  }

  /** Says on disk what is durable, so that harm to it can be told from a torn end; needs no sync of its own. */
  #claim(): void {
    if (this.#claimed) return;
    const { current } = this.#store;
    // At the end of a segment the base of the next one says it.
    if (current.endOffset + 2 * MARK_BYTES > this.#options.segmentBytes) this.#claimed = true;
    else this.#writeMark(current, MarkKind.synced, this.#lastIndex, false);
  }

  #throwFailure(): void {
    const { failedErrno, failedCall } = this.#writer;
    if (failedErrno !== 0) throw logFailure(this.#options.folder, failedCall, failedErrno);
  }

  // Beginning anew, reading back -----------------------------------------------------------------------

  /** All that was taken is void; the log begins behind this base. Returns when that is durable: rare, so it waits. */
  beginAnew(base: LogBaseState, epoch: number): void {
    this.#epoch = epoch;
    this.#store.prepareNext();
    while (!this.#rotate(base, BaseKind.beginsAnew)) this.#wait();
    // The claims that follow speak of the new log already.
    this.#setLast(base.index, base.term, base.checksum);
    const wanted = this.#tickets;
    while (this.#durableTickets < wanted) this.#wait();
    this.#store.dropAllBefore();
    this.#durableIndex = base.index;
    this.#positions.truncateTo(-1);
    this.#reader.forget();
    this.#wantsSegment = false;
  }

  #wait(): void {
    const { folder, segmentBytes } = this.#options;
    this.#writer.wait();
    this.#throwFailure();
    this.#store.poll(-Infinity);
    if (this.#store.fullSinceUs !== undefined) throw new LogFullError(folder, segmentBytes);
    if (!this.#store.isEmpty) this.poll(-Infinity);
  }

  /** The oldest record that can be read back. */
  get firstIndex(): number {
    return (this.#store.first?.base.index ?? Infinity) + 1;
  }

  /** Copies record `index`, as it was taken, to `target.bytes[at ...]`. Its bytes; 0: it cannot be read now. */
  read(index: LogIndex, target: RecordMemory, at: number): number {
    if (index < this.firstIndex || index > this.#durableIndex) return 0;
    return this.#reader.read(index, target, at);
  }

  #readable(sequence: number): ReadableSegment | undefined {
    const segment = this.#store.bySequence(sequence);
    if (segment === undefined || sequence > this.#durableSequence) return undefined;
    const { fd, endOffset } = segment;
    return { fd, readableBytes: sequence === this.#durableSequence ? this.#durableOffset : endOffset };
  }

  /** Finishes what was taken, and gives the folder free. */
  close(): void {
    this.#writer.close();
    this.#store.close();
    this.#lock.release();
  }
}

function lockFolder(folder: string): LockFile {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
  const lock = takeLock(join(folder, 'lock'));
  if ('release' in lock) return lock;
  throw new LogRefusedError(
    'GAIA_LOG_IN_USE',
    folder,
    `The log in ${folder} is being written by process ${lock.holderPid}: two replicas must never share one; stop that process first`,
  );
}
