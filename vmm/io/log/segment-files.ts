/** The files of a durable log: names, reading one whole, and making what was done to a folder durable. */
import { closeSync, existsSync, fstatSync, fsyncSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { recordMemory, type RecordMemory } from '../../core/falcon/record.ts';

const fileName = /^segment-(\d{10})\.log$/;

export function segmentFile(folder: string, sequence: number): string {
  return join(folder, `segment-${String(sequence).padStart(10, '0')}.log`);
}

/** Sequence numbers of the segments in a folder, ascending. */
export function segmentSequences(folder: string): number[] {
  return readdirSync(folder)
    .flatMap((name) => fileName.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((left, right) => left - right);
}

/** Up to `bytesMax` bytes of a file from its beginning, a multiple of 8. */
export function readHead(fd: number, bytesMax = Infinity): RecordMemory {
  const bytes = new Uint8Array(Math.min(fstatSync(fd).size, bytesMax) & ~7);
  for (let at = 0; at < bytes.length;) {
    const count = readSync(fd, bytes, at, bytes.length - at, at);
    if (count === 0) break;
    at += count;
  }
  return recordMemory(bytes);
}

/** Whether there are only zeros from `from`, a multiple of 4, to the end. */
export function isZeroFrom({ bytes }: RecordMemory, from: number): boolean {
  if (from >= bytes.length) return true;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + from, (bytes.length - from) >>> 2);
  for (const word of words) if (word !== 0) return false;
  return true;
}

/** After this, files made, renamed or removed in the folder are so after a power cut, too. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Whether there is a log in the folder; the folder itself may be missing. */
export function hasSegments(folder: string): boolean {
  return existsSync(folder) && segmentSequences(folder).length > 0;
}
