/**
 * How pages of a real guest change: Redis under load in a bare VM, whose memory is looked at again and again while the
 * VM stands. The pages that changed since the last look are shipped as a leader would: with the version of that look
 * in common, where the page was shipped then.
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { bitmapWords, setBit } from '../../merkle/bitmap.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../merkle/page-space.ts';
import { shippedAs, stagingBytesMax } from '../../merkle/staging-format.ts';
import { StagingWriter } from '../../merkle/staging-writer.ts';
import { native } from '../../native/binding.ts';
import { ShippingSide } from './shipping-costs.ts';

/** What one look found. */
export interface Look {
  readonly pages: number;
  readonly bytes: number;
  /** Pages shipped as a delta, their bytes, and how many of their 512 words had changed. */
  readonly deltaPages: number;
  readonly deltaBytes: number;
  readonly deltaWords: number;
  /** The same pages without a common version: hashes of their parts in one more exchange, then the parts that differ. */
  readonly partBytes: number;
}

/** Bytes of a part, and of its hash, in the other way to ship; the size that did best in this is taken. */
const partSizes = [64, 128, 256] as const;
const partHashBytes = 8;

const nothing = new Uint8Array(0);

/** Looks at the memory of the QEMU `pid` `count` times, `everyMs` of running apart. */
export async function lookAtGuest(
  pid: number,
  count: number,
  everyMs: number,
  signal: AbortSignal,
): Promise<Look[]> {
  const live = mapMemory(pid);
  const pageCount = live.byteLength / PAGE_BYTES;
  const seen = new ArrayBuffer(live.byteLength);
  new Uint8Array(seen).set(new Uint8Array(live));
  const side = new ShippingSide(
    { blocks: [{ memory: seen, pageCount, bitmapBit: 0 }] },
    bitmapWords(pageCount),
  );
  const writer = new StagingWriter(side.parts);
  const looks: Look[] = [];
  try {
    for (let look = 0; look <= count; look++) {
      await delay(everyMs, undefined, { signal });
      process.kill(pid, 'SIGSTOP');
      let changes: Changes;
      try {
        changes = takeOver(live, seen, side);
      } finally {
        process.kill(pid, 'SIGCONT');
      }
      const { changed } = changes;
      const area = new Uint8Array(stagingBytesMax(changed.length, 0));
      const bytes = writer.write(
        area,
        { term: 1, round: look, attempt: 1 },
        changed,
        changed.length,
        nothing,
      );
      const bitmap = new Uint32Array(bitmapWords(pageCount));
      for (const page of changed) setBit(bitmap, page);
      side.keep(bitmap, changed, nothing);
      // The first look has nothing in common with an earlier one.
      if (look > 0) looks.push(lookOf(writer, bytes, changes));
    }
  } finally {
    native().memoryUnmap(live);
  }
  return looks;
}

function lookOf(writer: StagingWriter, bytes: number, { changed, words, partBytes }: Changes): Look {
  return {
    pages: changed.length,
    bytes,
    deltaPages: writer.pagesAs[shippedAs.delta] ?? 0,
    deltaBytes: writer.bytesAs[shippedAs.delta] ?? 0,
    deltaWords: words,
    partBytes,
  };
}

interface Changes {
  readonly changed: Uint32Array;
  /** 8-byte words that changed in pages that were shipped before, and what those pages would take by parts. */
  readonly words: number;
  readonly partBytes: number;
}

/** Copies what changed. */
function takeOver(live: ArrayBuffer, seen: ArrayBuffer, { parts: { common } }: ShippingSide): Changes {
  const [now, before] = [new Uint32Array(live), new Uint32Array(seen)];
  const changed: number[] = [];
  const partBytes = partSizes.map(() => 0);
  let words = 0;
  for (let page = 0; page < live.byteLength / PAGE_BYTES; page++) {
    const at = page * PAGE_BYTES;
    if (Buffer.compare(new Uint8Array(live, at, PAGE_BYTES), new Uint8Array(seen, at, PAGE_BYTES)) === 0)
      continue;
    changed.push(page);
    const base = page * PAGE_WORDS;
    if (common.slotOf(page) >= 0) {
      words += stretchesChanged(now, before, base, 8);
      for (const [index, size] of partSizes.entries()) {
        const differing = stretchesChanged(now, before, base, size);
        partBytes[index] = (partBytes[index] ?? 0) + (PAGE_BYTES / size) * partHashBytes + differing * size;
      }
    }
    before.set(now.subarray(base, base + PAGE_WORDS), base);
  }
  return { changed: Uint32Array.from(changed), words, partBytes: Math.min(...partBytes) };
}

/** Of the stretches of `bytes` bytes that a page consists of, how many are not the same. */
function stretchesChanged(now: Uint32Array, before: Uint32Array, base: number, bytes: number): number {
  const length = bytes / 4;
  let count = 0;
  for (let start = base; start < base + PAGE_WORDS; start += length) {
    let word = start;
    while (word < start + length && now[word] === before[word]) word++;
    if (word < start + length) count++;
  }
  return count;
}

/** The guest's memory, the largest memfd that QEMU holds. */
function mapMemory(pid: number): ArrayBuffer {
  const folder = `/proc/${pid}/fd`;
  const sizes = readdirSync(folder)
    .filter((fd) => readlinkSync(`${folder}/${fd}`).startsWith('/memfd:'))
    .map((fd) => ({ fd: openSync(`${folder}/${fd}`, 'r') }))
    .map(({ fd }) => ({ fd, bytes: fstatSync(fd).size }))
    .sort((one, other) => other.bytes - one.bytes);
  try {
    const [largest] = sizes;
    if (largest === undefined) throw new Error(`Process ${pid} holds no memory of a guest`);
    return native().memoryMap(largest.fd, 0, largest.bytes, false);
  } finally {
    for (const { fd } of sizes) closeSync(fd);
  }
}
