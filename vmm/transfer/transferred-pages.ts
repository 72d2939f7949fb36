/** What a transfer of state has in common on both sides: which memory travels, and how its messages begin. */
import type { GuestPort } from '../io/qemu/port.ts';
import { pageBytes } from '../io/qemu/layout.ts';
import { messageBytesMax } from '../io/transport/transport.ts';

/** A message of pages or of device state: u64 where from, u64 where to, then the bytes. */
export const chunkHeaderBytes = 16;
export const chunkBytesMax = messageBytesMax - chunkHeaderBytes;
export const chunkPagesMax = Math.floor(chunkBytesMax / pageBytes);
const wordsPerPage = pageBytes / 4;

/** Memory that travels page by page: the RAM blocks, then the deliver ring. */
export function transferredMemory(port: GuestPort): readonly Uint8Array[] {
  return [...port.blocks.map((block) => new Uint8Array(block.memory)), port.deliver.data];
}

export function wordsOf(memory: Uint8Array): Int32Array {
  return new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
}

export function pageIsZero(words: Int32Array, page: number): boolean {
  const end = (page + 1) * wordsPerPage;
  for (let at = page * wordsPerPage; at < end; at += 4) {
    if (((words[at] ?? 0) | (words[at + 1] ?? 0) | (words[at + 2] ?? 0) | (words[at + 3] ?? 0)) !== 0)
      return false;
  }
  return true;
}
