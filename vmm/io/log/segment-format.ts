/**
 * A segment of the durable log: a preallocated file, little-endian throughout.
 *
 *        0  header      who the log belongs to; on disk before the file is ever used
 *     4096  base        where the log stood when this segment was begun
 *     8192  entries     records (core/falcon/record.ts, unchanged) and marks, in the order in which they were written,
 *                       each a multiple of 8 bytes; zeros behind the last one
 *
 *   header  0 u64 magic   8 u32 version   12 u32 CRC-32C over the 52 other bytes   16 u64 cluster id
 *           24 u32 replica id   28 u32 sequence number   32 u64 nonce   40 u64 bytes of the file
 *   base    0 u32 magic   4 u32 CRC-32C from byte 8 to the end   8 u64 nonce   16 u32 1: continues, 2: begins anew
 *           20 u32 claimed sequence number   24 u32 claimed offset   28 u32 term   32 u64 index   40 u32 checksum
 *           44 u32 bytes of the state   48 state: JSON
 *   mark    0 u32 magic   4 u32 CRC-32C from byte 8 to 47   8 u64 nonce   16 u32 1: synced, 2: truncated   20 u32 own offset
 *           24 u32 claimed sequence number   28 u32 claimed offset   32 u64 index   40 u64 zero
 *
 * A claim says that all before this place in this segment was durable when the claim was written. So what is harmed
 * before a claimed place was lost by the disk, while behind every claim a crash may have torn it. The nonce is random
 * and secret: no payload can pretend to be a mark.
 */
import type { Crc32c } from '../../core/falcon/crc32c.ts';
import type { Members } from '../../core/falcon/membership.ts';
import { readUint64, recordMemory, writeUint64, type RecordMemory } from '../../core/falcon/record.ts';
import type { LogBase } from '../../core/falcon/settings.ts';
import type { LogIndex, ReplicaId, Term } from '../../core/ids.ts';
import { invariant } from '../../core/invariant.ts';

export const SEGMENT_VERSION = 1;
export const HEADER_BYTES = 64;
export const BASE_OFFSET = 4096;
const BASE_BYTES_MAX = 4096;
export const ENTRIES_OFFSET = 8192;
export const MARK_BYTES = 48;

/** "GAIALOG1" */
const HEADER_MAGIC = 0x3147_4f4c_4149_4147n;
/** "FBAS", "FMRK" in little-endian order. */
const BASE_MAGIC = 0x53414246;
export const MARK_MAGIC = 0x4b524d46;
const BASE_FIXED_BYTES = 48;

export interface LogIdentity {
  readonly clusterId: bigint;
  readonly replica: ReplicaId;
}

export interface SegmentHeader extends LogIdentity {
  readonly version: number;
  readonly sequence: number;
  readonly nonce: bigint;
  readonly segmentBytes: number;
}

/** A place in the log: a segment and a byte in it. */
export interface LogPlace {
  readonly sequence: number;
  readonly offset: number;
}

/** What a log begins behind, or a segment of it. */
export interface LogBaseState extends LogBase {
  /** Who belongs to the cluster at `index`. */
  readonly members: Members;
}

export const BaseKind = { continues: 1, beginsAnew: 2 } as const;
export const MarkKind = { synced: 1, truncated: 2 } as const;

export interface SegmentBase extends LogBaseState {
  readonly kind: number;
  readonly claim: LogPlace;
}

export interface Mark {
  readonly kind: number;
  readonly claim: LogPlace;
  /** Truncated: the last record that stays. Synced: the last one before the mark. */
  readonly index: LogIndex;
}

export function encodeHeader(header: SegmentHeader, crc32c: Crc32c): Uint8Array {
  const { bytes, view } = recordMemory(new Uint8Array(HEADER_BYTES));
  view.setBigUint64(0, HEADER_MAGIC, true);
  view.setUint32(8, header.version, true);
  view.setBigUint64(16, header.clusterId, true);
  view.setUint32(24, header.replica, true);
  view.setUint32(28, header.sequence, true);
  view.setBigUint64(32, header.nonce, true);
  writeUint64(view, 40, header.segmentBytes);
  view.setInt32(12, headerChecksum(bytes, crc32c), true);
  return bytes;
}

function headerChecksum(bytes: Uint8Array, crc32c: Crc32c): number {
  return crc32c(bytes, 16, HEADER_BYTES - 16, crc32c(bytes, 0, 12, 0));
}

/** Undefined: not one whole header. Another version than ours is told by its number. */
export function decodeHeader(bytes: Uint8Array, crc32c: Crc32c): SegmentHeader | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const { view } = recordMemory(bytes);
  if (view.getBigUint64(0, true) !== HEADER_MAGIC) return undefined;
  if (view.getInt32(12, true) !== headerChecksum(bytes, crc32c)) return undefined;
  return {
    version: view.getUint32(8, true),
    clusterId: view.getBigUint64(16, true),
    replica: view.getUint32(24, true) as ReplicaId,
    sequence: view.getUint32(28, true),
    nonce: view.getBigUint64(32, true),
    segmentBytes: readUint64(view, 40),
  };
}

export function encodeBase(base: SegmentBase, nonce: bigint, crc32c: Crc32c): Uint8Array {
  const { executing, members } = base;
  const state = Buffer.from(JSON.stringify({ executing, members }));
  const { bytes, view } = recordMemory(new Uint8Array((BASE_FIXED_BYTES + state.length + 7) & ~7));
  invariant(bytes.length <= BASE_BYTES_MAX, 'the state at the base of a segment fits its block');
  view.setUint32(0, BASE_MAGIC, true);
  view.setBigUint64(8, nonce, true);
  view.setUint32(16, base.kind, true);
  view.setUint32(20, base.claim.sequence, true);
  view.setUint32(24, base.claim.offset, true);
  view.setUint32(28, base.term, true);
  writeUint64(view, 32, base.index);
  view.setInt32(40, base.checksum, true);
  view.setUint32(44, state.length, true);
  bytes.set(state, BASE_FIXED_BYTES);
  view.setInt32(4, crc32c(bytes, 8, BASE_FIXED_BYTES + state.length - 8, 0), true);
  return bytes;
}

/** `memory` is the whole segment. Undefined: not one whole base of this segment. */
export function decodeBase(memory: RecordMemory, nonce: bigint, crc32c: Crc32c): SegmentBase | undefined {
  const { bytes, view } = memory;
  const at = BASE_OFFSET;
  if (bytes.length < ENTRIES_OFFSET || view.getUint32(at, true) !== BASE_MAGIC) return undefined;
  const stateBytes = view.getUint32(at + 44, true);
  if (stateBytes > BASE_BYTES_MAX - BASE_FIXED_BYTES) return undefined;
  if (view.getInt32(at + 4, true) !== crc32c(bytes, at + 8, BASE_FIXED_BYTES + stateBytes - 8, 0))
    return undefined;
  if (view.getBigUint64(at + 8, true) !== nonce) return undefined;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + at + BASE_FIXED_BYTES, stateBytes).toString();
  const state = JSON.parse(text) as Pick<LogBaseState, 'executing' | 'members'>;
  return {
    ...state,
    kind: view.getUint32(at + 16, true),
    claim: { sequence: view.getUint32(at + 20, true), offset: view.getUint32(at + 24, true) },
    term: view.getUint32(at + 28, true) as Term,
    index: readUint64(view, at + 32) as LogIndex,
    checksum: view.getInt32(at + 40, true),
  };
}

/** Writes a mark that will lie at `offset` of its segment to the beginning of `memory`. Allocates nothing. */
export function encodeMark(
  memory: RecordMemory,
  kind: number,
  offset: number,
  nonce: bigint,
  claimSequence: number,
  claimOffset: number,
  index: LogIndex,
  crc32c: Crc32c,
): void {
  const { bytes, view } = memory;
  view.setUint32(0, MARK_MAGIC, true);
  view.setBigUint64(8, nonce, true);
  view.setUint32(16, kind, true);
  view.setUint32(20, offset, true);
  view.setUint32(24, claimSequence, true);
  view.setUint32(28, claimOffset, true);
  writeUint64(view, 32, index);
  writeUint64(view, 40, 0);
  view.setInt32(4, crc32c(bytes, 8, MARK_BYTES - 8, 0), true);
}

/** `memory` is the whole segment. Undefined: no whole mark of this segment lies there. */
export function decodeMark(
  memory: RecordMemory,
  at: number,
  nonce: bigint,
  crc32c: Crc32c,
): Mark | undefined {
  const { bytes, view } = memory;
  if (at + MARK_BYTES > bytes.length || view.getUint32(at, true) !== MARK_MAGIC) return undefined;
  if (view.getUint32(at + 20, true) !== at || view.getBigUint64(at + 8, true) !== nonce) return undefined;
  if (view.getInt32(at + 4, true) !== crc32c(bytes, at + 8, MARK_BYTES - 8, 0)) return undefined;
  return {
    kind: view.getUint32(at + 16, true),
    claim: { sequence: view.getUint32(at + 24, true), offset: view.getUint32(at + 28, true) },
    index: readUint64(view, at + 32) as LogIndex,
  };
}

/** Whether `left` lies before `right` in the log. */
export function isBefore(left: LogPlace, right: LogPlace): boolean {
  return left.sequence < right.sequence || (left.sequence === right.sequence && left.offset < right.offset);
}
