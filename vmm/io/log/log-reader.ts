/**
 * Reads single records back from the segments while the log is being written: what a leader sends to a backup that
 * needs more than memory still holds. Reads ahead, so that records in a row cost one system call for many.
 */
import { readSync } from 'node:fs';
import {
  RECORD_HEADER_BYTES,
  recordBytesFor,
  recordIndex,
  recordMemory,
  recordPayloadBytes,
  type RecordMemory,
} from '../../core/falcon/record.ts';
import type { LogIndex } from '../../core/ids.ts';
import { ENTRIES_OFFSET, MARK_BYTES, MARK_MAGIC, MarkKind } from './segment-format.ts';
import type { RecordPositions } from './record-positions.ts';

const aheadBytes = 256 * 1024;

/** A segment as far as it may be read. */
export interface ReadableSegment {
  readonly fd: number;
  readonly readableBytes: number;
}

export class LogReader {
  readonly #positions: RecordPositions;
  readonly #segment: (sequence: number) => ReadableSegment | undefined;
  #ahead: RecordMemory = recordMemory(new Uint8Array(aheadBytes));
  #aheadSequence = -1;
  #aheadOffset = 0;
  #aheadLength = 0;
  #nextIndex = -1;
  #sequence = 0;
  #offset = 0;

  constructor(positions: RecordPositions, segment: (sequence: number) => ReadableSegment | undefined) {
    this.#positions = positions;
    this.#segment = segment;
  }

  /** What was read ahead, and where the next record lies, is void: the log was truncated or dropped. */
  forget(): void {
    this.#nextIndex = -1;
    this.#aheadSequence = -1;
  }

  /** Copies record `index` to `target.bytes[at ...]`. Its bytes; 0: not there, or it does not fit. */
  read(index: LogIndex, target: RecordMemory, at: number): number {
    if (!this.#seek(index)) return 0;
    for (;;) {
      const from = this.#load(8);
      if (from === -1) return this.#lost();
      if (this.#ahead.view.getUint32(from, true) === MARK_MAGIC) {
        const mark = this.#load(MARK_BYTES);
        if (mark === -1 || this.#ahead.view.getUint32(mark + 16, true) === MarkKind.truncated)
          return this.#lost();
        this.#offset += MARK_BYTES;
        continue;
      }
      const length = this.#recordBytes();
      const found = length === 0 ? -1 : this.#load(length);
      if (found === -1) return this.#lost();
      const isWanted = recordIndex(this.#ahead, found) === index;
      if (isWanted && at + length > target.bytes.length) return 0;
      this.#offset += length;
      if (!isWanted) continue;
      target.bytes.set(this.#ahead.bytes.subarray(found, found + length), at);
      this.#nextIndex = index + 1;
      return length;
    }
  }

  #lost(): number {
    this.forget();
    return 0;
  }

  /** To the record, or the nearest row before it. Behind the last one read may lie what was truncated since. */
  #seek(index: LogIndex): boolean {
    const row = this.#positions.find(index);
    if (row === undefined) return false;
    if (index === this.#nextIndex && row.index !== index) return true;
    this.#nextIndex = index;
    this.#sequence = row.sequence;
    this.#offset = row.offset;
    return true;
  }

  #recordBytes(): number {
    const from = this.#load(RECORD_HEADER_BYTES);
    if (from === -1) return 0;
    const payloadBytes = recordPayloadBytes(this.#ahead, from);
    return payloadBytes < 0 ? 0 : recordBytesFor(payloadBytes);
  }

  /** Where in what was read ahead the next `bytes` lie, or -1. Goes on to the next segment at the end of one. */
  #load(bytes: number): number {
    let segment = this.#segment(this.#sequence);
    if (segment === undefined) return -1;
    if (this.#offset >= segment.readableBytes) {
      const next = this.#segment(this.#sequence + 1);
      if (next === undefined) return -1;
      segment = next;
      this.#sequence++;
      this.#offset = ENTRIES_OFFSET;
    }
    if (this.#offset + bytes > segment.readableBytes) return -1;
    const from = this.#offset - this.#aheadOffset;
    const held = this.#aheadSequence === this.#sequence && from >= 0 && from + bytes <= this.#aheadLength;
    return held ? from : this.#readAhead(segment, bytes);
  }

  #readAhead(segment: ReadableSegment, bytes: number): number {
    if (bytes > this.#ahead.bytes.length) this.#ahead = recordMemory(new Uint8Array(bytes));
    const wanted = Math.min(this.#ahead.bytes.length, segment.readableBytes - this.#offset);
    this.#aheadSequence = this.#sequence;
    this.#aheadOffset = this.#offset;
    this.#aheadLength = readSync(segment.fd, this.#ahead.bytes, 0, wanted, this.#offset);
    return this.#aheadLength >= bytes ? 0 : -1;
  }
}
