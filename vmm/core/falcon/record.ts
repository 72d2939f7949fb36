/**
 * The wire record of the Falcon log, little-endian, the same bytes in memory, on the wire and on disk.
 *
 *    0  u32 magic
 *    4  u32 header checksum     CRC-32C over bytes 8 to 23
 *    8  u32 writer's term       the leader that sent these bytes
 *   12  u64 commit index        of that leader when it stamped them
 *   20  u32 content checksum    CRC-32C over byte 24 to the end
 *   24  u32 origin term         the leader that first appended the record
 *   28  u64 index
 *   36  u32 origin term of the record before
 *   40  u32 content checksum of the record before
 *   44  u32 type
 *   48  u32 count               meaning is the type's
 *   52  u32 payload bytes
 *   56  payload, then zeros to a multiple of 8
 *
 * Every bit is covered: the header checksum covers the content checksum, which covers the rest. What a
 * later leader changes when it sends an inherited record again (writer's term, commit index) lies outside
 * the content checksum, so that name of a record stays the same for ever and chains to all before it.
 */
import type { LogIndex, Term } from '../ids.ts';
import type { Crc32c } from './crc32c.ts';

export const RECORD_HEADER_BYTES = 56;
/** "FREC" in little-endian order. */
const RECORD_MAGIC = 0x43455246;

const HEADER_CHECKSUM = 4;
const WRITER_TERM = 8;
const COMMIT_INDEX = 12;
const CONTENT_CHECKSUM = 20;
const ORIGIN_TERM = 24;
const INDEX = 28;
const PREVIOUS_TERM = 36;
const PREVIOUS_CHECKSUM = 40;
const TYPE = 44;
const COUNT = 48;
const PAYLOAD_BYTES = 52;

const TWO_32 = 0x1_0000_0000;

/** One stretch of memory seen both ways; made once, so that reading a field allocates nothing. */
export interface RecordMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

export function recordMemory(bytes: Uint8Array): RecordMemory {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
}

/** Bytes a record with `payloadBytes` takes: header, payload and padding. */
export function recordBytesFor(payloadBytes: number): number {
  return (RECORD_HEADER_BYTES + payloadBytes + 7) & ~7;
}

export function readUint64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

export function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

export function recordWriterTerm(memory: RecordMemory, at: number): Term {
  return memory.view.getInt32(at + WRITER_TERM, true) as Term;
}

export function recordCommitIndex(memory: RecordMemory, at: number): LogIndex {
  return readUint64(memory.view, at + COMMIT_INDEX) as LogIndex;
}

export function recordChecksum(memory: RecordMemory, at: number): number {
  return memory.view.getInt32(at + CONTENT_CHECKSUM, true);
}

export function recordOriginTerm(memory: RecordMemory, at: number): Term {
  return memory.view.getInt32(at + ORIGIN_TERM, true) as Term;
}

export function recordIndex(memory: RecordMemory, at: number): LogIndex {
  return readUint64(memory.view, at + INDEX) as LogIndex;
}

export function recordPreviousTerm(memory: RecordMemory, at: number): Term {
  return memory.view.getInt32(at + PREVIOUS_TERM, true) as Term;
}

export function recordPreviousChecksum(memory: RecordMemory, at: number): number {
  return memory.view.getInt32(at + PREVIOUS_CHECKSUM, true);
}

export function recordType(memory: RecordMemory, at: number): number {
  return memory.view.getInt32(at + TYPE, true);
}

export function recordCount(memory: RecordMemory, at: number): number {
  return memory.view.getInt32(at + COUNT, true);
}

export function recordPayloadBytes(memory: RecordMemory, at: number): number {
  return memory.view.getInt32(at + PAYLOAD_BYTES, true);
}

/**
 * Writes the header around a payload that already lies at `at + RECORD_HEADER_BYTES`, pads it, and seals
 * both checksums. Returns the content checksum.
 */
export function encodeRecord(
  memory: RecordMemory,
  at: number,
  originTerm: Term,
  index: LogIndex,
  previousTerm: Term,
  previousChecksum: number,
  commitIndex: LogIndex,
  type: number,
  count: number,
  payloadBytes: number,
  crc32c: Crc32c,
): number {
  const { view, bytes } = memory;
  const length = recordBytesFor(payloadBytes);
  for (let pad = RECORD_HEADER_BYTES + payloadBytes; pad < length; pad++) bytes[at + pad] = 0;
  view.setInt32(at + ORIGIN_TERM, originTerm, true);
  writeUint64(view, at + INDEX, index);
  view.setInt32(at + PREVIOUS_TERM, previousTerm, true);
  view.setInt32(at + PREVIOUS_CHECKSUM, previousChecksum, true);
  view.setInt32(at + TYPE, type, true);
  view.setInt32(at + COUNT, count, true);
  view.setInt32(at + PAYLOAD_BYTES, payloadBytes, true);
  const checksum = crc32c(bytes, at + ORIGIN_TERM, length - ORIGIN_TERM, 0);
  view.setInt32(at + CONTENT_CHECKSUM, checksum, true);
  view.setInt32(at, RECORD_MAGIC, true);
  stampRecord(memory, at, originTerm, commitIndex, crc32c);
  return checksum;
}

/** Makes the record one that the leader of `writerTerm` sends; what it says is untouched. */
export function stampRecord(
  memory: RecordMemory,
  at: number,
  writerTerm: Term,
  commitIndex: LogIndex,
  crc32c: Crc32c,
): void {
  const { view, bytes } = memory;
  view.setInt32(at + WRITER_TERM, writerTerm, true);
  writeUint64(view, at + COMMIT_INDEX, commitIndex);
  view.setInt32(at + HEADER_CHECKSUM, crc32c(bytes, at + WRITER_TERM, ORIGIN_TERM - WRITER_TERM, 0), true);
}

/** True when the `length` bytes at `at` are exactly one whole, unharmed record. */
export function recordIsIntact(memory: RecordMemory, at: number, length: number, crc32c: Crc32c): boolean {
  const { view, bytes } = memory;
  if (length < RECORD_HEADER_BYTES || at + length > bytes.length) return false;
  if (view.getInt32(at, true) !== RECORD_MAGIC) return false;
  const payloadBytes = view.getInt32(at + PAYLOAD_BYTES, true);
  if (payloadBytes < 0 || payloadBytes > length || recordBytesFor(payloadBytes) !== length) return false;
  const header = crc32c(bytes, at + WRITER_TERM, ORIGIN_TERM - WRITER_TERM, 0);
  if (view.getInt32(at + HEADER_CHECKSUM, true) !== header) return false;
  const content = crc32c(bytes, at + ORIGIN_TERM, length - ORIGIN_TERM, 0);
  return view.getInt32(at + CONTENT_CHECKSUM, true) === content;
}
