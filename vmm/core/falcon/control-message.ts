/**
 * The small messages between replicas: everything but records, acks and heartbeats. Each may be lost,
 * doubled, delayed or overtaken; what it says stays true, or its term, process number or region number
 * shows that it is old.
 *
 *   candidate                          voter
 *      | preVoteRequest                  |    would you vote for me? (nothing changes)
 *      |------------------------------->|
 *      |                  preVoteReply  |
 *      |<-------------------------------|
 *      | voteRequest (ack memory key)   |
 *      |------------------------------->|    persists term and vote, opens a region
 *      |          voteReply (its key)   |
 *      |<-------------------------------|
 *   leader                             who did not vote for it, or comes late
 *      | announce (ack memory key)      |
 *      |------------------------------->|    opens a region
 *      |             region (its key)   |
 *      |<-------------------------------|
 *      |             resync             |    a record was harmed on its way: begin again behind my commit index
 *      |<-------------------------------|
 *      | standNow                       |    elect yourself, at once (leadership transfer, hand-over)
 *      |------------------------------->|
 */
import { REPLICA_ID_MAX, TERM_MAX, type LogIndex, type ReplicaId, type Term } from '../ids.ts';
import type { Crc32c } from './crc32c.ts';
import {
  decodeExecutingSet,
  encodeExecutingSet,
  executingSetBytes,
  EXECUTORS_MAX,
  type ExecutingSet,
} from './executing-set.ts';
import {
  decodeMembers,
  encodeMembers,
  memberCount,
  membersAreSound,
  membersBytes,
  MEMBERS_MAX,
  type Members,
} from './membership.ts';
import { readUint64, writeUint64 } from './record.ts';

export const MessageKind = {
  preVoteRequest: 1,
  preVoteReply: 2,
  voteRequest: 3,
  voteReply: 4,
  announce: 5,
  region: 6,
  resync: 7,
  standNow: 8,
  /** Answer to anything of an older term. */
  newerTerm: 9,
  /** A replica that may not stand for election is here and hears no leader: see rejoin.ts for one that lost its log. */
  hello: 10,
  /** The log of the receiver ends before what the leader still holds: see rejoin.ts. */
  rebase: 11,
} as const;

/** One shape for all kinds; what a kind has no use for is zero or empty. */
export interface ControlMessage {
  readonly kind: number;
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  /** The sender's process number. */
  readonly processNumber: number;
  /** Drawn by the sender's process when it started: two processes under one id and number differ in it. */
  readonly instance: number;
  /** The sender's term when it sent this. */
  readonly term: Term;
  /** The term asked for, granted, or led. */
  readonly electionTerm: Term;
  readonly granted: boolean;
  /** A vote is asked for on the leader's own word, so that voters need not have lost the leader. */
  readonly handOver: boolean;
  /** How many regions the sender's process had opened when it opened this one. */
  readonly regionNumber: number;
  /** announce, rebase: the receiver's process that this is meant for. */
  readonly toProcess: number;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly lastChecksum: number;
  readonly commitIndex: LogIndex;
  /** standNow: the executing set for the first record of the new term; empty: only the new leader. */
  readonly executing: ExecutingSet;
  /** rebase: the members where the log begins anew; else undefined. */
  readonly members: Members | undefined;
  /** Opaque to the core: where the receiver may put records, or acks. */
  readonly key: Uint8Array;
}

/** Named maximum of one message. */
export const CONTROL_BYTES_MAX = 1024;
export const REGION_KEY_BYTES_MAX = 512;
const PROTOCOL_VERSION = 2;
/** "FCTL" in little-endian order. */
const CONTROL_MAGIC = 0x4c544346;
const FIXED_BYTES = 88;
const FLAG_GRANTED = 1;
const FLAG_HAND_OVER = 2;

/** Why a message was not taken; `GAIA_…` errors are made of these by the shell. */
export type ControlRefusal =
  | 'malformed'
  | 'protocol version'
  | 'cluster id'
  /** Sent under another name than the transport knows, or meant for someone else. */
  | 'replica id'
  /** Two processes run under one replica id. */
  | 'duplicate replica id';

export function encodeControlMessage(message: ControlMessage, clusterId: bigint, crc32c: Crc32c): Uint8Array {
  const { executing, members, key } = message;
  const membersAt = FIXED_BYTES + executingSetBytes(executing);
  const keyAt = membersAt + (members === undefined ? 0 : membersBytes(members));
  const bytes = new Uint8Array(keyAt + key.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, CONTROL_MAGIC, true);
  view.setUint16(8, PROTOCOL_VERSION, true);
  view.setUint16(10, message.kind, true);
  view.setBigUint64(12, clusterId, true);
  view.setUint32(20, message.from, true);
  view.setUint32(24, message.to, true);
  view.setUint32(28, message.processNumber, true);
  view.setUint32(32, message.term, true);
  view.setUint32(36, message.electionTerm, true);
  const flags = (message.granted ? FLAG_GRANTED : 0) | (message.handOver ? FLAG_HAND_OVER : 0);
  view.setUint32(40, flags, true);
  view.setUint32(44, message.regionNumber, true);
  writeUint64(view, 48, message.lastIndex);
  view.setUint32(56, message.lastTerm, true);
  view.setInt32(60, message.lastChecksum, true);
  writeUint64(view, 64, message.commitIndex);
  view.setUint16(72, executing.length, true);
  view.setUint16(74, key.length, true);
  view.setUint32(76, message.toProcess, true);
  view.setUint32(80, message.instance, true);
  view.setUint32(84, members === undefined ? 0 : memberCount(members), true);
  encodeExecutingSet(executing, view, FIXED_BYTES);
  if (members !== undefined) encodeMembers(members, view, membersAt);
  bytes.set(key, keyAt);
  view.setInt32(4, crc32c(bytes, 8, bytes.length - 8, 0), true);
  return bytes;
}

/** The message, or why it is none of ours. Bytes come from elsewhere: nothing in them is believed unchecked. */
export function decodeControlMessage(
  bytes: Uint8Array,
  clusterId: bigint,
  crc32c: Crc32c,
): ControlMessage | ControlRefusal {
  if (bytes.length < FIXED_BYTES || bytes.length > CONTROL_BYTES_MAX) return 'malformed';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== CONTROL_MAGIC) return 'malformed';
  if (view.getInt32(4, true) !== crc32c(bytes, 8, bytes.length - 8, 0)) return 'malformed';
  if (view.getUint16(8, true) !== PROTOCOL_VERSION) return 'protocol version';
  if (view.getBigUint64(12, true) !== clusterId) return 'cluster id';
  const executors = view.getUint16(72, true);
  const keyBytes = view.getUint16(74, true);
  const memberEntries = view.getUint32(84, true);
  if (executors > EXECUTORS_MAX || memberEntries > MEMBERS_MAX) return 'malformed';
  const membersAt = FIXED_BYTES + executors * 8;
  const keyAt = membersAt + memberEntries * 8;
  if (keyAt + keyBytes !== bytes.length) return 'malformed';
  if (view.getUint32(20, true) > REPLICA_ID_MAX || view.getUint32(24, true) > REPLICA_ID_MAX)
    return 'malformed';
  if (view.getUint32(32, true) > TERM_MAX || view.getUint32(36, true) > TERM_MAX) return 'malformed';
  const flags = view.getUint32(40, true);
  const members = memberEntries === 0 ? undefined : decodeMembers(view, membersAt, memberEntries);
  if (members !== undefined && !membersAreSound(members)) return 'malformed';
  return {
    kind: view.getUint16(10, true),
    from: view.getUint32(20, true) as ReplicaId,
    to: view.getUint32(24, true) as ReplicaId,
    processNumber: view.getUint32(28, true),
    instance: view.getUint32(80, true),
    term: view.getUint32(32, true) as Term,
    electionTerm: view.getUint32(36, true) as Term,
    granted: (flags & FLAG_GRANTED) !== 0,
    handOver: (flags & FLAG_HAND_OVER) !== 0,
    regionNumber: view.getUint32(44, true),
    toProcess: view.getUint32(76, true),
    lastIndex: readUint64(view, 48) as LogIndex,
    lastTerm: view.getUint32(56, true) as Term,
    lastChecksum: view.getInt32(60, true),
    commitIndex: readUint64(view, 64) as LogIndex,
    executing: decodeExecutingSet(view, FIXED_BYTES, executors),
    members,
    key: bytes.slice(keyAt),
  };
}
