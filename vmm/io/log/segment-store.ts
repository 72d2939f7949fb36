/**
 * The segments of a log as files: the next one is made ahead of need, the oldest go when they are no longer needed.
 * Guarantees: a segment is handed out only once it has its place on the disk and its header is durable; the files that
 * are there always follow one another without a gap.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, unlinkSync } from 'node:fs';
import { constants } from 'node:os';
import type { Crc32c } from '../../core/falcon/crc32c.ts';
import { invariant } from '../../core/invariant.ts';
import { logFailure } from './log-errors.ts';
import {
  encodeHeader,
  ENTRIES_OFFSET,
  SEGMENT_VERSION,
  type LogBaseState,
  type LogIdentity,
} from './segment-format.ts';
import { segmentFile, syncFolder } from './segment-files.ts';
import type { SegmentWriter } from './segment-writer.ts';

const fullRetryUs = 1_000_000;
/** The one that is written, and the one before it, whose end the first claims in the new one speak of. */
const segmentsLeast = 2;

export interface Segment {
  readonly file: string;
  readonly fd: number;
  readonly sequence: number;
  readonly nonce: bigint;
  readonly base: LogBaseState;
  /** Lowest record that a truncation in it left as the last one. */
  floorIndex: number;
  endOffset: number;
}

export interface PreparedSegment {
  readonly file: string;
  readonly fd: number;
  readonly sequence: number;
  readonly nonce: bigint;
}

export interface SegmentStoreOptions {
  readonly folder: string;
  readonly identity: LogIdentity;
  readonly crc32c: Crc32c;
  readonly segmentBytes: number;
  /** The oldest go when all of them take more, as far as they hold nothing that is still needed. */
  readonly diskBytesMax: number;
}

export class SegmentStore {
  readonly #options: SegmentStoreOptions;
  readonly #writer: SegmentWriter;
  #segments: Segment[];
  #prepared: PreparedSegment | undefined;
  #preparing: Omit<PreparedSegment, 'fd'> | undefined;
  #preparesSeen = 0;
  #retryAtUs = 0;
  /** The disk has had no room for another segment since this time. */
  fullSinceUs: number | undefined;

  constructor(options: SegmentStoreOptions, writer: SegmentWriter, segments: Segment[]) {
    this.#options = options;
    this.#writer = writer;
    this.#segments = segments;
  }

  get isEmpty(): boolean {
    return this.#segments.length === 0;
  }

  /** The one that is written. */
  get current(): Segment {
    const segment = this.#segments.at(-1);
    invariant(segment !== undefined, 'a durable log has a segment');
    return segment;
  }

  get first(): Segment | undefined {
    return this.#segments[0];
  }

  bySequence(sequence: number): Segment | undefined {
    return this.#segments[sequence - (this.#segments[0]?.sequence ?? 0)];
  }

  /** Bytes of all files. */
  get diskBytes(): number {
    const made = this.#segments.length + (this.#prepared === undefined ? 0 : 1);
    return made * this.#options.segmentBytes;
  }

  // Made ahead of need ---------------------------------------------------------------------------------

  get prepared(): PreparedSegment | undefined {
    return this.#prepared;
  }

  prepareNext(): void {
    if (this.#preparing !== undefined || this.#prepared !== undefined) return;
    const { folder, identity, segmentBytes, crc32c } = this.#options;
    const sequence = (this.#segments.at(-1)?.sequence ?? 0) + 1;
    const nonce = randomBytes(8).readBigUInt64LE();
    const header = { ...identity, version: SEGMENT_VERSION, sequence, nonce, segmentBytes };
    const file = segmentFile(folder, sequence);
    if (this.#writer.prepare(file, segmentBytes, encodeHeader(header, crc32c)))
      this.#preparing = { file, sequence, nonce };
  }

  /** Learns whether the next segment is there. Without room on the disk it is asked for again every second. */
  poll(nowUs: number): void {
    const { preparesEnded, prepareErrno, preparedFd } = this.#writer;
    const preparing = this.#preparing;
    if (preparesEnded === this.#preparesSeen || preparing === undefined) {
      if (this.fullSinceUs !== undefined && nowUs >= this.#retryAtUs) this.prepareNext();
      return;
    }
    this.#preparesSeen = preparesEnded;
    this.#preparing = undefined;
    if (prepareErrno === 0) {
      this.#prepared = { ...preparing, fd: preparedFd };
      this.fullSinceUs = undefined;
      return;
    }
    const { ENOSPC, EDQUOT } = constants.errno;
    if (prepareErrno !== ENOSPC && prepareErrno !== EDQUOT)
      throw logFailure(this.#options.folder, 'posix_fallocate', prepareErrno);
    this.fullSinceUs ??= nowUs;
    this.#retryAtUs = nowUs + fullRetryUs;
  }

  /** The prepared segment is the one that is written from now on. */
  takePrepared(base: LogBaseState): Segment {
    const prepared = this.#prepared;
    invariant(prepared !== undefined, 'a segment is prepared before it is taken');
    const segment = { ...prepared, base, floorIndex: Infinity, endOffset: ENTRIES_OFFSET };
    this.#segments.push(segment);
    this.#prepared = undefined;
    this.prepareNext();
    return segment;
  }

  // Given up -------------------------------------------------------------------------------------------

  /** With the one that is being prepared, more bytes than are allowed. */
  get overLimit(): boolean {
    const { segmentBytes, diskBytesMax } = this.#options;
    return (this.#segments.length + 1) * segmentBytes > diskBytesMax;
  }

  /**
   * Gives up the oldest segment if it holds only records up to `index` and what follows stands on its own: that is
   * durable up to `durableSequence`, and never takes back what lies before it. False: nothing was given up.
   */
  dropOldest(index: number, durableSequence: number): boolean {
    const [oldest, next] = this.#segments;
    if (oldest === undefined || next === undefined || this.#segments.length <= segmentsLeast) return false;
    const first = next.base.index;
    if (first > index || next.sequence > durableSequence) return false;
    if (this.#segments.some(({ floorIndex }, position) => position > 0 && floorIndex < first)) return false;
    this.#segments.shift();
    this.#discard(oldest);
    return true;
  }

  /** All but the one that is written. */
  dropAllBefore(): void {
    for (const segment of this.#segments.splice(0, this.#segments.length - 1)) this.#discard(segment);
  }

  /** Oldest first, and each for good before the next one: a gap would look like a loss. */
  #discard({ file, fd }: Segment): void {
    closeSync(fd);
    unlinkSync(file);
    syncFolder(this.#options.folder);
  }

  /** After the writer has ended. */
  close(): void {
    for (const { fd } of this.#segments) closeSync(fd);
    if (this.#prepared !== undefined) closeSync(this.#prepared.fd);
    // It came too late to be used.
    else if (this.#preparing !== undefined && this.#writer.preparedFd !== -1)
      closeSync(this.#writer.preparedFd);
    this.#segments = [];
  }
}
