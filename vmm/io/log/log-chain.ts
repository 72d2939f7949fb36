/**
 * The end of a log while it is read: which record may come next. A record is taken only if it is whole and continues
 * exactly the one before it. Remembers enough of the newest records to take back a truncated end.
 */
import type { Crc32c } from '../../core/falcon/crc32c.ts';
import {
  RECORD_HEADER_BYTES,
  recordBytesFor,
  recordChecksum,
  recordIndex,
  recordIsIntact,
  recordOriginTerm,
  recordPayloadBytes,
  recordPreviousChecksum,
  recordPreviousTerm,
  type RecordMemory,
} from '../../core/falcon/record.ts';
import type { LogIndex, Term } from '../../core/ids.ts';

/** More than any log in memory holds, and so more than is ever truncated. */
const recordsKept = 1 << 19;

export class LogChain {
  readonly #terms = new Int32Array(recordsKept);
  readonly #checksums = new Int32Array(recordsKept);
  #firstKept = 0;
  lastIndex = 0 as LogIndex;
  lastTerm = 0 as Term;
  lastChecksum = 0;

  begin(index: LogIndex, term: Term, checksum: number): void {
    this.#firstKept = index;
    this.#set(index, term, checksum);
  }

  endsWith(index: LogIndex, term: Term, checksum: number): boolean {
    return index === this.lastIndex && term === this.lastTerm && checksum === this.lastChecksum;
  }

  #set(index: LogIndex, term: Term, checksum: number): void {
    this.#terms[index % recordsKept] = term;
    this.#checksums[index % recordsKept] = checksum;
    this.lastIndex = index;
    this.lastTerm = term;
    this.lastChecksum = checksum;
    if (index - this.#firstKept >= recordsKept) this.#firstKept = index - recordsKept + 1;
  }

  /** Bytes of the record at `at`, which is the last one now; 0: it is not whole, or not the next. */
  take(memory: RecordMemory, at: number, crc32c: Crc32c): number {
    const left = memory.bytes.length - at;
    if (left < RECORD_HEADER_BYTES) return 0;
    const payloadBytes = recordPayloadBytes(memory, at);
    if (payloadBytes < 0 || payloadBytes > left) return 0;
    const length = recordBytesFor(payloadBytes);
    if (!recordIsIntact(memory, at, length, crc32c)) return 0;
    const index = recordIndex(memory, at);
    const before = (index - 1) as LogIndex;
    if (!this.endsWith(before, recordPreviousTerm(memory, at), recordPreviousChecksum(memory, at))) return 0;
    this.#set(index, recordOriginTerm(memory, at), recordChecksum(memory, at));
    return length;
  }

  /** False: this record is not known. */
  truncateTo(index: LogIndex): boolean {
    if (index < this.#firstKept || index > this.lastIndex) return false;
    const slot = index % recordsKept;
    this.#set(index, (this.#terms[slot] ?? 0) as Term, this.#checksums[slot] ?? 0);
    return true;
  }
}
