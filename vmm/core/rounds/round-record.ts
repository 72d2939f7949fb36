/**
 * The payload of a round's record: how far both guests run, and the frames that both find when they start.
 *
 *    0 u64 virtual instant at which the round ends, ns; 0: none
 *    8 u64 rounds up to this index: the leader has released their output
 *   16 u32 real time that the round may last, µs; 0: any
 *   20 u32 flags: 1 it ends when the guest has gone quiet
 *   24 frames: u32 bytes, u32 zero, bytes, padded to 8
 */
import { readUint64, writeUint64, type RecordMemory } from '../falcon/record.ts';

export const RoundRecordType = {
  /** Both guests get these frames and run. */
  round: 16,
  /** Each side hashes what its guest changed since the last one, and goes on. */
  verification: 17,
  /** Both guests stand: their memories are compared page by page. */
  comparison: 18,
  /** Both guests stand: the backup's is made equal to the leader's, whatever differs. */
  reconciliation: 19,
  /** Both guests have reset themselves in the round before, and begin anew. */
  guestReset: 20,
  /** Both guests have ended in the round before, and stay so. The record's count says how: a stop reason. */
  guestOff: 21,
} as const;

export const ROUND_HEADER_BYTES = 24;
const frameHeaderBytes = 8;
const flagUntilQuiet = 1;

/** How far a round goes; it ends by whichever comes first. */
export interface RoundExtent {
  /** Virtual instant, ns; 0: none. */
  readonly untilNs: number;
  /** Real time, µs; 0: any. */
  readonly realUsMax: number;
  /** When the guest has taken its input and waits. */
  readonly untilQuiet: boolean;
}

export function frameBytesInRound(frameBytes: number): number {
  return frameHeaderBytes + ((frameBytes + 7) & ~7);
}

export function writeRoundHeader(
  memory: RecordMemory,
  at: number,
  { untilNs, realUsMax, untilQuiet }: RoundExtent,
  released: number,
): void {
  writeUint64(memory.view, at, untilNs);
  writeUint64(memory.view, at + 8, released);
  memory.view.setUint32(at + 16, realUsMax, true);
  memory.view.setUint32(at + 20, untilQuiet ? flagUntilQuiet : 0, true);
}

export function roundExtent(memory: RecordMemory, at: number): RoundExtent {
  return {
    untilNs: readUint64(memory.view, at),
    realUsMax: memory.view.getUint32(at + 16, true),
    untilQuiet: (memory.view.getUint32(at + 20, true) & flagUntilQuiet) !== 0,
  };
}

export function roundReleasedIndex(memory: RecordMemory, at: number): number {
  return readUint64(memory.view, at + 8);
}

/** Copies a frame in at `at`; returns the position behind it. */
export function writeFrame(
  memory: RecordMemory,
  at: number,
  source: Uint8Array,
  offset: number,
  bytes: number,
): number {
  memory.view.setUint32(at, bytes, true);
  memory.view.setUint32(at + 4, 0, true);
  memory.bytes.set(source.subarray(offset, offset + bytes), at + frameHeaderBytes);
  return at + frameBytesInRound(bytes);
}

/** Bytes of the frame whose header lies at `at`; the frame follows 8 bytes behind. */
export function frameBytesAt(memory: RecordMemory, at: number): number {
  return memory.view.getUint32(at, true);
}

export function frameOffsetAt(at: number): number {
  return at + frameHeaderBytes;
}
