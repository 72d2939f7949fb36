/**
 * Reads a durable log back: hands its records out in order, each whole and the continuation of the one before it.
 *
 * Guarantees. Everything that was ever called durable is handed out, or the log is refused by the name of the file,
 * the byte and the record. What a crash can have torn is cut off: only what lies behind every claim of durability
 * (segment-format.ts). What was truncated stays so: a truncation is an entry of its own, and a record is taken only
 * if it continues exactly the one before it. What is handed out is on the disk itself, not only in memory: each file
 * is synced and read anew, as pages that once could not be written may still be cached as if they had been. Behind
 * the end there are only zeros, so that nothing of what was cut off can ever be taken for a later entry.
 *
 * One thing nobody can tell: whether the very last group of writes was torn by a crash, or harmed later, when the
 * machine lost its power before the next claim was written. It is cut off then.
 */
import { closeSync, fdatasyncSync, fstatSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { native } from '../../../native/binding.ts';
import type { Crc32c } from '../../core/falcon/crc32c.ts';
import type { RecordMemory } from '../../core/falcon/record.ts';
import type { LogIndex, Term } from '../../core/ids.ts';
import { goOnWithoutLog, LogCorruptError, LogRefusedError } from './log-errors.ts';
import { LogChain } from './log-chain.ts';
import {
  BASE_OFFSET,
  BaseKind,
  decodeBase,
  decodeHeader,
  decodeMark,
  ENTRIES_OFFSET,
  HEADER_BYTES,
  isBefore,
  MARK_BYTES,
  MARK_MAGIC,
  MarkKind,
  SEGMENT_VERSION,
  type LogIdentity,
  type LogPlace,
  type SegmentBase,
  type SegmentHeader,
} from './segment-format.ts';
import { isZeroFrom, readHead, segmentFile, segmentSequences, syncFolder } from './segment-files.ts';

/** Hears what the log holds, in order. A truncation takes back what was heard before. */
export interface LogVisitor {
  segment(header: SegmentHeader, base: SegmentBase): void;
  /** A whole record, which continues what was heard before. */
  record(memory: RecordMemory, at: number, length: number, index: LogIndex): void;
  truncated(index: LogIndex, markOffset: number): void;
}

interface RecoveredSegment {
  readonly file: string;
  readonly fd: number;
  readonly header: SegmentHeader;
  readonly base: SegmentBase;
  /** First byte behind its last entry. */
  readonly endOffset: number;
}

export interface RecoveredLog {
  /** In order; the last one goes on being written. Empty: there is no log. The descriptors are the caller's. */
  readonly segments: readonly RecoveredSegment[];
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly lastChecksum: number;
  /** Bytes that were cut off as torn. */
  readonly cutBytes: number;
}

/**
 * Reads the log in `folder`, mends its end, and leaves its files open. Not `repair`: looks, touches nothing, and
 * leaves nothing open. Without `identity` it may be anyone's.
 */
export function recoverLog(
  folder: string,
  identity: LogIdentity | undefined,
  crc32c: Crc32c,
  visitor: LogVisitor,
  repair = true,
): RecoveredLog {
  return new Recovery(folder, identity, crc32c, visitor, repair).run();
}

interface OpenSegment {
  readonly file: string;
  readonly sequence: number;
  readonly fd: number;
}

class Recovery {
  readonly #folder: string;
  readonly #identity: LogIdentity | undefined;
  readonly #crc32c: Crc32c;
  readonly #visitor: LogVisitor;
  readonly #repair: boolean;
  readonly #chain = new LogChain();
  #open: OpenSegment[] = [];
  readonly #segments: RecoveredSegment[] = [];
  #cutBytes = 0;

  constructor(
    folder: string,
    identity: LogIdentity | undefined,
    crc32c: Crc32c,
    visitor: LogVisitor,
    repair: boolean,
  ) {
    this.#folder = folder;
    this.#identity = identity;
    this.#crc32c = crc32c;
    this.#visitor = visitor;
    this.#repair = repair;
  }

  run(): RecoveredLog {
    try {
      this.#openAll();
      this.#forgetVoid();
      this.#open.every((segment, position) => this.#take(segment, position));
      this.#discard(this.#open.slice(this.#segments.length).reverse());
    } catch (error) {
      for (const { fd } of this.#open) closeSync(fd);
      throw error;
    }
    if (!this.#repair) for (const { fd } of this.#segments) closeSync(fd);
    return {
      segments: this.#segments,
      lastIndex: this.#chain.lastIndex,
      lastTerm: this.#chain.lastTerm,
      lastChecksum: this.#chain.lastChecksum,
      cutBytes: this.#cutBytes,
    };
  }

  #openAll(): void {
    for (const sequence of segmentSequences(this.#folder)) {
      const file = segmentFile(this.#folder, sequence);
      const before = this.#open.at(-1);
      const missing = segmentFile(this.#folder, (before?.sequence ?? 0) + 1);
      if (before !== undefined && sequence !== before.sequence + 1) {
        throw new LogRefusedError(
          'GAIA_LOG_GAP',
          missing,
          `${missing} is missing, though ${file} is there: put it back, or ${goOnWithoutLog(this.#folder)}`,
        );
      }
      const fd = openSync(file, this.#repair ? 'r+' : 'r');
      this.#open.push({ file, sequence, fd });
      if (!this.#repair) continue;
      fdatasyncSync(fd);
      native().fileForgetCached(fd);
    }
  }

  /** What lies before a segment that begins anew was kept only until that one was durable. */
  #forgetVoid(): void {
    for (let position = this.#open.length - 1; position > 0; position--) {
      const segment = this.#open[position];
      if (segment === undefined) return;
      const memory = readHead(segment.fd, ENTRIES_OFFSET);
      const header = this.#header(segment, memory, position);
      const base = header === undefined ? undefined : decodeBase(memory, header.nonce, this.#crc32c);
      if (base?.kind !== BaseKind.beginsAnew) continue;
      this.#discard(this.#open.slice(0, position));
      this.#open = this.#open.slice(position);
      return;
    }
  }

  /** Takes one segment. False: the log ends in it, or before it. */
  #take(segment: OpenSegment, position: number): boolean {
    const { file, fd } = segment;
    const memory = readHead(fd);
    const header = this.#header(segment, memory, position);
    if (header === undefined) return false;
    const base = decodeBase(memory, header.nonce, this.#crc32c);
    if (base !== undefined) this.#checkClaim(base.claim);
    if (base === undefined || !this.#continues(base)) {
      const what =
        base === undefined ? 'its base is not whole' : 'it does not continue the segment before it';
      this.#refuseClaimed(position, header, memory, BASE_OFFSET, what);
      return false;
    }
    if (this.#segments.length === 0) this.#chain.begin(base.index, base.term, base.checksum);
    this.#visitor.segment(header, base);
    const endOffset = this.#entries(position, header, memory);
    this.#segments.push({ file, fd, header, base, endOffset });
    if (isZeroFrom(memory, endOffset)) return true;
    this.#cutBytes += this.#zeroFrom(fd, memory, endOffset);
    return false;
  }

  /** Undefined: a file that was never begun. */
  #header(
    { file, sequence, fd }: OpenSegment,
    memory: RecordMemory,
    position: number,
  ): SegmentHeader | undefined {
    const header = decodeHeader(memory.bytes.subarray(0, HEADER_BYTES), this.#crc32c);
    const nextIndex = this.#chain.lastIndex + 1;
    if (header === undefined) {
      // The header is on disk before anything else of its file is, and before the next file is made.
      if (position === this.#open.length - 1 && isZeroFrom(readHead(fd), HEADER_BYTES)) return undefined;
      throw new LogCorruptError(file, 0, nextIndex, 'its header is not whole');
    }
    if (header.version !== SEGMENT_VERSION) {
      throw new LogRefusedError(
        'GAIA_LOG_VERSION',
        file,
        `${file} is of log version ${header.version}, and this program reads version ${SEGMENT_VERSION}: run the gaia-vm that wrote it`,
      );
    }
    this.#checkIdentity(file, header);
    if (header.sequence !== sequence) {
      throw new LogRefusedError(
        'GAIA_LOG_FOREIGN',
        file,
        `${file} says that it is segment ${header.sequence}: it was renamed or copied; put the right file there`,
      );
    }
    const fileBytes = fstatSync(fd).size;
    if (header.segmentBytes !== fileBytes) {
      const what = `the file has ${fileBytes} bytes instead of ${header.segmentBytes}`;
      throw new LogCorruptError(file, fileBytes, nextIndex, what);
    }
    return header;
  }

  #checkIdentity(file: string, header: SegmentHeader): void {
    const identity = this.#identity;
    if (identity === undefined) return;
    if (header.clusterId !== identity.clusterId) {
      throw new LogRefusedError(
        'GAIA_LOG_CLUSTER',
        file,
        `${file} belongs to cluster ${header.clusterId}, not to ${identity.clusterId}: it is another VM's log, and stays as it is; give each VM a folder of its own`,
      );
    }
    if (header.replica !== identity.replica) {
      throw new LogRefusedError(
        'GAIA_LOG_REPLICA',
        file,
        `${file} is the log of replica ${header.replica}, not of ${identity.replica}: two replicas must never share a log; give each its own folder`,
      );
    }
  }

  #continues({ kind, index, term, checksum }: SegmentBase): boolean {
    // The first one left continues what was dropped behind a checkpoint.
    if (this.#segments.length === 0) return kind === BaseKind.beginsAnew || kind === BaseKind.continues;
    return kind === BaseKind.continues && this.#chain.endsWith(index, term, checksum);
  }

  /** Takes what is whole; returns the offset behind it. */
  #entries(position: number, header: SegmentHeader, memory: RecordMemory): number {
    const { bytes, view } = memory;
    let at = ENTRIES_OFFSET;
    while (at + 8 <= bytes.length) {
      const magic = view.getUint32(at, true);
      if (magic === 0 && isZeroFrom(memory, at)) break;
      const length = magic === MARK_MAGIC ? this.#mark(header, memory, at) : this.#record(memory, at);
      if (length === 0) {
        const what = 'it is not whole, or does not continue the one before it';
        this.#refuseClaimed(position, header, memory, at, what);
        break;
      }
      at += length;
    }
    return at;
  }

  #mark(header: SegmentHeader, memory: RecordMemory, at: number): number {
    const mark = decodeMark(memory, at, header.nonce, this.#crc32c);
    if (mark === undefined) return 0;
    this.#checkClaim(mark.claim);
    if (mark.kind === MarkKind.truncated) {
      if (!this.#chain.truncateTo(mark.index)) return 0;
      this.#visitor.truncated(mark.index, at);
      return MARK_BYTES;
    }
    return mark.kind === MarkKind.synced && mark.index === this.#chain.lastIndex ? MARK_BYTES : 0;
  }

  #record(memory: RecordMemory, at: number): number {
    const length = this.#chain.take(memory, at, this.#crc32c);
    if (length > 0) this.#visitor.record(memory, at, length, this.#chain.lastIndex);
    return length;
  }

  /** What is claimed of an earlier segment must be there. */
  #checkClaim(claim: LogPlace): void {
    for (const { file, header, endOffset } of this.#segments) {
      if (header.sequence !== claim.sequence || endOffset >= claim.offset) continue;
      throw new LogCorruptError(file, endOffset, this.#chain.lastIndex + 1, 'there are only zeros');
    }
  }

  /** Throws if anything behind this harmed place says that the place was durable. */
  #refuseClaimed(
    position: number,
    header: SegmentHeader,
    memory: RecordMemory,
    offset: number,
    what: string,
  ): void {
    const harm: LogPlace = { sequence: header.sequence, offset };
    const { file } = this.#open[position] ?? { file: this.#folder };
    const refuse = (claim: LogPlace | undefined): void => {
      if (claim === undefined || !isBefore(harm, claim)) return;
      throw new LogCorruptError(file, offset, this.#chain.lastIndex + 1, what);
    };
    refuse(this.#highestClaim(header, memory, offset));
    for (const later of this.#open.slice(position + 1)) {
      const laterMemory = readHead(later.fd);
      const laterHeader = decodeHeader(laterMemory.bytes.subarray(0, HEADER_BYTES), this.#crc32c);
      if (laterHeader === undefined) continue;
      refuse(decodeBase(laterMemory, laterHeader.nonce, this.#crc32c)?.claim);
      refuse(this.#highestClaim(laterHeader, laterMemory, ENTRIES_OFFSET));
    }
  }

  #highestClaim(header: SegmentHeader, memory: RecordMemory, from: number): LogPlace | undefined {
    const { bytes, view } = memory;
    let highest: LogPlace | undefined;
    for (let at = from; at + MARK_BYTES <= bytes.length; at += 8) {
      if (view.getUint32(at, true) !== MARK_MAGIC) continue;
      const claim = decodeMark(memory, at, header.nonce, this.#crc32c)?.claim;
      if (claim !== undefined && (highest === undefined || isBefore(highest, claim))) highest = claim;
    }
    return highest;
  }

  /** Returns how many bytes it are, up to the last that was not zero. */
  #zeroFrom(fd: number, { bytes }: RecordMemory, from: number): number {
    let end = bytes.length;
    while (end > from && bytes[end - 1] === 0) end--;
    if (this.#repair) {
      const zeros = new Uint8Array(end - from);
      for (let at = 0; at < zeros.length;) at += writeSync(fd, zeros, at, zeros.length - at, from + at);
      fdatasyncSync(fd);
    }
    return end - from;
  }

  #discard(segments: readonly OpenSegment[]): void {
    for (const { file, fd } of segments) {
      closeSync(fd);
      if (this.#repair) unlinkSync(file);
    }
    this.#open = this.#open.filter((segment) => !segments.includes(segment));
    if (this.#repair && segments.length > 0) syncFolder(this.#folder);
  }
}
