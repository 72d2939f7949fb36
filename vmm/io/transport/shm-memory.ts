/**
 * Memory of another process on this machine: named by (pid, fd) and opened through /proc, so that nothing has a
 * path and nothing outlives its owner. Only processes of the same user can open it.
 */
import { closeSync, openSync, constants } from 'node:fs';
import { native } from '../../../native/binding.ts';
import { GaiaError } from '../../core/errors.ts';

/** What a peer needs to reach a piece of memory. */
export interface MemoryKey {
  readonly pid: number;
  readonly fd: number;
  readonly bytes: number;
  /** Tells one region from the next of the same owner. */
  readonly serial: number;
}

const keyBytes = 16;

export function encodeMemoryKey(key: MemoryKey): Uint8Array {
  const words = Uint32Array.of(key.pid, key.fd, key.bytes, key.serial);
  return new Uint8Array(words.buffer);
}

export function decodeMemoryKey(bytes: Uint8Array): MemoryKey {
  if (bytes.length !== keyBytes)
    throw new GaiaError('GAIA_MEMORY_KEY', `A memory key has ${keyBytes} bytes, not ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, keyBytes);
  return {
    pid: view.getUint32(0, true),
    fd: view.getUint32(4, true),
    bytes: view.getUint32(8, true),
    serial: view.getUint32(12, true),
  };
}

/** Anonymous memory of this process that a peer may map. */
export class OwnMemory {
  readonly key: MemoryKey;
  readonly buffer: ArrayBuffer;

  constructor(name: string, bytes: number, serial: number) {
    const fd = native().memoryCreate(name, bytes);
    this.buffer = native().memoryMap(fd, 0, bytes, true);
    this.key = { pid: process.pid, fd, bytes, serial };
  }

  /** The mapping lasts as long as somebody holds its buffer. */
  abandon(): void {
    closeSync(this.key.fd);
  }

  /** Ends the mapping; a peer that still maps it writes where nobody reads. */
  close(): void {
    native().memoryUnmap(this.buffer);
    closeSync(this.key.fd);
  }
}

/** Maps a peer's memory for writing. Throws when the peer is gone. */
export function mapPeerMemory(key: MemoryKey): ArrayBuffer {
  const fd = openSync(`/proc/${key.pid}/fd/${key.fd}`, constants.O_RDWR);
  try {
    return native().memoryMap(fd, 0, key.bytes, true);
  } finally {
    closeSync(fd);
  }
}
