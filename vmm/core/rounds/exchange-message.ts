/**
 * Messages of a round's exchange, little-endian. What is longer than a transport's message travels in parts:
 *
 *    0 u32 kind            4 u32 CRC-32C over bytes 8 to the end
 *    8 u32 term           12 u32 attempt, rising within a term
 *   16 u64 index of the round
 *   24 u32 session of the backup: its process and guest; 0 before the leader knows it
 *   28 u32 step of the attempt: an answer carries that of its question
 *   32 u32 part           36 u32 bytes of all parts; 0 where that is told later
 *   40 payload: part p lies at p times the bytes of a full part
 *
 *   leader                                             backup
 *     | open: kind of exchange, last round, bitmap        |
 *     |-------------------------------------------------->|  stands, collects
 *     |           union: last round, union of both bitmaps |
 *     |<--------------------------------------------------|  both build the tree over the union
 *     | compare: hashes of a frontier                      |
 *     |-------------------------------------------------->|  until the leaves, or until nothing differs
 *     |                     differ: a bit for each of them |
 *     |<--------------------------------------------------|
 *     | stage: pages and state            end: root, sizes |
 *     |-------------------------------------------------->|  checks all of it, then applies all of it
 *     |                 applied: root; or incomplete/wanted |
 *     |<--------------------------------------------------|
 *     | confirm: only if loading wrote pages outside the union, which the leader has to compare first
 */
import type { Crc32c } from '../falcon/crc32c.ts';
import { readUint64, writeUint64 } from '../falcon/record.ts';

export const MessageType = {
  open: 1,
  union: 2,
  compare: 3,
  differ: 4,
  stage: 5,
  end: 6,
  /** Parts of the staging are missing or harmed: all of it again. */
  incomplete: 7,
  /** These pages, or the state, are deltas whose base is not here: whole, please. u32 1: the state; u32 each page. */
  wanted: 8,
  applied: 9,
  confirm: 10,
  confirmed: 11,
  /** The attempt is not known here (any more): another one, please. */
  unknown: 12,
  /** The other side said what cannot be; text follows. Nothing was applied. */
  refused: 13,
  /** This guest is not waiting to be made equal. */
  declined: 14,
  /** Of a survey, see survey-leader.ts: last round; answer: the own set, or nothing where all pages may differ. */
  surveyOpen: 15,
  surveyOpened: 16,
  /** u32 count, u32 pages, their hashes; answer: a bit for each page that differs. */
  surveyHashes: 17,
  surveyDiffer: 18,
  /** Pages that differ: u32 page, u32 1 whole or 0 zero, contents. Not answered: the next pass looks. */
  surveyPages: 19,
  /** What was not found equal is in the leader's set, as of a round that both now name. */
  surveyEnd: 20,
  surveyEnded: 21,
} as const;

export const EXCHANGE_HEADER_BYTES = 40;

export interface ExchangeMessage {
  readonly type: number;
  readonly term: number;
  readonly attempt: number;
  readonly index: number;
  readonly session: number;
  readonly step: number;
  readonly part: number;
  readonly totalBytes: number;
  /** A view into the message. */
  readonly payload: Uint8Array;
}

export type ExchangeHeader = Omit<ExchangeMessage, 'payload'>;

/** Seals a message whose payload lies behind its header in `bytes` already. */
export function sealMessage(bytes: Uint8Array, header: ExchangeHeader, crc32c: Crc32c): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(0, header.type, true);
  view.setUint32(8, header.term, true);
  view.setUint32(12, header.attempt, true);
  writeUint64(view, 16, header.index);
  view.setUint32(24, header.session, true);
  view.setUint32(28, header.step, true);
  view.setUint32(32, header.part, true);
  view.setUint32(36, header.totalBytes, true);
  view.setInt32(4, crc32c(bytes, 8, bytes.length - 8, header.type | 0), true);
}

/** Undefined: harmed on its way, which is the same as lost. */
export function openMessage(bytes: Uint8Array, crc32c: Crc32c): ExchangeMessage | undefined {
  if (bytes.length < EXCHANGE_HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const type = view.getUint32(0, true);
  if (view.getInt32(4, true) !== crc32c(bytes, 8, bytes.length - 8, type | 0)) return undefined;
  return {
    type,
    term: view.getUint32(8, true),
    attempt: view.getUint32(12, true),
    index: readUint64(view, 16),
    session: view.getUint32(24, true),
    step: view.getUint32(28, true),
    part: view.getUint32(32, true),
    totalBytes: view.getUint32(36, true),
    payload: bytes.subarray(EXCHANGE_HEADER_BYTES),
  };
}
