/**
 * What tests of the durable log need: records as the core makes them, options for a small log, and a writer whose
 * syncs and crashes the test decides. Its files are real; a crash leaves any sectors of what was not synced.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import {
  encodeRecord,
  recordBytesFor,
  RECORD_HEADER_BYTES,
  recordMemory,
} from '../../vmm/core/falcon/record.ts';
import { toLogIndex, toReplicaId, toTerm } from '../../vmm/core/ids.ts';
import type { DurableLogOptions, LogRestorer } from '../../vmm/io/log/durable-log.ts';
import type { LogBaseState } from '../../vmm/io/log/segment-format.ts';
import type { SegmentWriter } from '../../vmm/io/log/segment-writer.ts';

const sectorBytes = 512;

/** One record, and what it takes to continue it. */
export interface MadeRecord {
  readonly index: number;
  readonly term: number;
  readonly checksum: number;
  readonly bytes: Uint8Array;
}

export const noRecord: MadeRecord = { index: 0, term: 0, checksum: 0, bytes: new Uint8Array(0) };

/** The record behind `before`, whose payload is `payloadBytes` times `fill`. */
export function makeRecord(before: MadeRecord, term: number, payloadBytes: number, fill: number): MadeRecord {
  const memory = recordMemory(new Uint8Array(recordBytesFor(payloadBytes)));
  memory.bytes.fill(fill, RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + payloadBytes);
  const index = before.index + 1;
  const checksum = encodeRecord(
    memory, 0, toTerm(term), toLogIndex(index), toTerm(before.term), before.checksum,
    toLogIndex(0), 16, 1, payloadBytes, crc32cByTables,
  ); // prettier-ignore
  return { index, term, checksum, bytes: memory.bytes };
}

export const firstBase: LogBaseState = {
  index: toLogIndex(0),
  term: toTerm(0),
  checksum: 0,
  executing: [{ replica: toReplicaId(0), incarnation: 1 }],
  members: { voters: [0, 1, 2].map(toReplicaId), nonVoters: [] },
};

/** A small log of replica 1 in cluster 77. */
export function logOptions(folder: string, more: Partial<DurableLogOptions> = {}): DurableLogOptions {
  const { executing, members } = firstBase;
  return {
    folder,
    identity: { clusterId: 77n, replica: toReplicaId(1) },
    crc32c: crc32cByTables,
    segmentBytes: 16 * 1024,
    diskBytesMax: Infinity,
    firstBase,
    stateAt: () => ({ executing, members }),
    ...more,
  };
}

/** Keeps what recovery hands out: the live records, as a replica would have them. */
export class RestoredLog implements LogRestorer {
  base: LogBaseState | undefined;
  records: MadeRecord[] = [];

  begin(base: LogBaseState): void {
    this.base = base;
    this.records = [];
  }

  record(...[{ bytes, view }, at, length]: Parameters<LogRestorer['record']>): void {
    this.records.push({
      index: view.getUint32(at + 28, true),
      term: view.getInt32(at + 24, true),
      checksum: view.getInt32(at + 20, true),
      bytes: bytes.slice(at, at + length),
    });
  }

  truncated(index: number): void {
    this.records = this.records.filter((record) => record.index <= index);
  }
}

interface Pending {
  readonly fd: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly sync: boolean;
}

export class ScriptedWriter implements SegmentWriter {
  readonly eventFd = -1;
  durableWrites = 0;
  failedErrno = 0;
  readonly failedCall = 'fdatasync';
  preparesEnded = 0;
  prepareErrno = 0;
  preparedFd = -1;
  /** No file can be prepared as long as this is true. */
  diskFull = false;
  /** Writes that it takes before it has no room. */
  roomWrites = Infinity;
  writes = 0;
  #pending: Pending[] = [];

  get pendingWrites(): number {
    return this.#pending.length;
  }

  write(fd: number, offset: number, bytes: Uint8Array, at: number, length: number, sync: boolean): boolean {
    if (this.#pending.length >= this.roomWrites) return false;
    this.#pending.push({ fd, offset, bytes: bytes.slice(at, at + length), sync });
    this.writes++;
    return true;
  }

  prepare(file: string, bytes: number, head: Uint8Array): boolean {
    this.preparesEnded++;
    this.prepareErrno = this.diskFull ? constants.errno.ENOSPC : 0;
    this.preparedFd = -1;
    if (this.diskFull) return true;
    this.preparedFd = openSync(file, 'wx+', 0o600);
    ftruncateSync(this.preparedFd, bytes);
    writeSync(this.preparedFd, head, 0, head.length, 0);
    return true;
  }

  /** One group commit of all that waits. */
  sync(): void {
    if (!this.#pending.some(({ sync }) => sync)) return;
    for (const { fd, offset, bytes } of this.#pending) writeSync(fd, bytes, 0, bytes.length, offset);
    this.#pending = [];
    this.durableWrites = this.writes | 0;
  }

  /** Of what waits, the sectors for which `kept` says so reach the disk. */
  crash(kept: () => boolean): void {
    for (const { fd, offset, bytes } of this.#pending) {
      for (let from = 0; from < bytes.length;) {
        const end = Math.min(bytes.length, from + sectorBytes - ((offset + from) % sectorBytes));
        if (kept()) writeSync(fd, bytes, from, end - from, offset + from);
        from = end;
      }
    }
    this.#pending = [];
  }

  wait(): void {
    this.sync();
  }

  drain(): void {
    // Nothing rings.
  }

  close(): void {
    this.#pending = [];
  }
}

/** Overwrites bytes of a file, as a failing disk would. */
export function harm(file: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}
