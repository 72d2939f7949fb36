/**
 * The two small blocks that replicas keep overwriting in each other's memory: a backup's ack, a leader's
 * heartbeat. Several words are never written at once on any transport, so each block carries a checksum;
 * a block that is only half there is not believed and read again later.
 *
 *   ack, 48 bytes                         heartbeat, 32 bytes
 *    0 u32 checksum over 4 to 47           0 u32 checksum over 4 to 31
 *    4 u32 term                            4 u32 term
 *    8 u64 index                           8 u64 counter
 *   16 u32 record's content checksum      16 u64 commit index
 *   20 u32 1 when the executor is VALID   24 zero
 *   24 u64 heartbeat counter echoed
 *   32 u32 executor's incarnation
 *   36 u32 process number
 *   40 u64 received index: as index, but not yet durable
 */
import type { LogIndex, Term } from '../ids.ts';
import type { Crc32c } from './crc32c.ts';
import { readUint64, writeUint64, type RecordMemory } from './record.ts';

export const ACK_BYTES = 48;
export const HEARTBEAT_BYTES = 32;

/** A backup's word: "all records up to this one are durable here". One object, filled again and again. */
export class Ack {
  term = 0 as Term;
  index = 0 as LogIndex;
  checksum = 0;
  /** As `index`, but durable or not: tells a slow disk from bytes that never arrived. */
  received = 0 as LogIndex;
  echo = 0;
  incarnation = 0;
  valid = false;
  processNumber = 0;
}

/** A leader's word: "I live and make progress". One object, filled again and again. */
export class Heartbeat {
  term = 0 as Term;
  counter = 0;
  commitIndex = 0 as LogIndex;
}

export function writeAckBlock(ack: Ack, memory: RecordMemory, at: number, crc32c: Crc32c): void {
  const { view, bytes } = memory;
  view.setUint32(at + 4, ack.term, true);
  writeUint64(view, at + 8, ack.index);
  view.setInt32(at + 16, ack.checksum, true);
  view.setUint32(at + 20, ack.valid ? 1 : 0, true);
  writeUint64(view, at + 24, ack.echo);
  view.setUint32(at + 32, ack.incarnation, true);
  view.setUint32(at + 36, ack.processNumber, true);
  writeUint64(view, at + 40, ack.received);
  view.setInt32(at, crc32c(bytes, at + 4, ACK_BYTES - 4, 0), true);
}

/** Copies a block out of memory that others write, so that what is checked is what is used. */
function copyBlock(source: Uint8Array, at: number, scratch: RecordMemory, length: number): void {
  for (let position = 0; position < length; position++) scratch.bytes[position] = source[at + position] ?? 0;
}

/** The first word of a block: as long as it stands, the block says what it said. */
export function blockWord(source: Uint8Array, at: number): number {
  return (
    (source[at] ?? 0) |
    ((source[at + 1] ?? 0) << 8) |
    ((source[at + 2] ?? 0) << 16) |
    ((source[at + 3] ?? 0) << 24)
  );
}

/** False when the block is torn or was never written. `scratch` is private and holds at least the block. */
export function readAckBlock(
  ack: Ack,
  source: Uint8Array,
  at: number,
  scratch: RecordMemory,
  crc32c: Crc32c,
): boolean {
  copyBlock(source, at, scratch, ACK_BYTES);
  const { view, bytes } = scratch;
  if (view.getInt32(0, true) !== crc32c(bytes, 4, ACK_BYTES - 4, 0)) return false;
  ack.term = view.getInt32(4, true) as Term;
  ack.index = readUint64(view, 8) as LogIndex;
  ack.checksum = view.getInt32(16, true);
  ack.valid = view.getUint32(20, true) === 1;
  ack.echo = readUint64(view, 24);
  ack.incarnation = view.getUint32(32, true);
  ack.processNumber = view.getUint32(36, true);
  ack.received = readUint64(view, 40) as LogIndex;
  return true;
}

export function writeHeartbeatBlock(beat: Heartbeat, memory: RecordMemory, at: number, crc32c: Crc32c): void {
  const { view, bytes } = memory;
  view.setUint32(at + 4, beat.term, true);
  writeUint64(view, at + 8, beat.counter);
  writeUint64(view, at + 16, beat.commitIndex);
  writeUint64(view, at + 24, 0);
  view.setInt32(at, crc32c(bytes, at + 4, HEARTBEAT_BYTES - 4, 0), true);
}

/** False when the block is torn or was never written. `scratch` is private and holds at least the block. */
export function readHeartbeatBlock(
  beat: Heartbeat,
  source: Uint8Array,
  at: number,
  scratch: RecordMemory,
  crc32c: Crc32c,
): boolean {
  copyBlock(source, at, scratch, HEARTBEAT_BYTES);
  const { view, bytes } = scratch;
  if (view.getInt32(0, true) !== crc32c(bytes, 4, HEARTBEAT_BYTES - 4, 0)) return false;
  beat.term = view.getInt32(4, true) as Term;
  beat.counter = readUint64(view, 8);
  beat.commitIndex = readUint64(view, 16) as LogIndex;
  return true;
}
