import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { addonFile, loadAddon, mappingCount } from './addon.ts';

const addon = loadAddon();
const file = addonFile();

/** Runs `code`, which has `addon` and `data`, in a thread of its own; gives what it posts. */
async function inWorker(code: string, data: Readonly<Record<string, unknown>>): Promise<unknown> {
  const source = `const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(workerData.file);
    const data = workerData;
    parentPort.postMessage((() => { ${code} })());`;
  const worker = new Worker(source, { eval: true, workerData: { file, ...data }, trackUnmanagedFds: false });
  const ended = once(worker, 'exit');
  const [message] = (await once(worker, 'message')) as [unknown];
  await ended;
  return message;
}

describe('a worker thread', () => {
  it('shares memory with the main thread through the descriptor', async () => {
    const fd = addon.memoryCreate('gaia-worker', 8192);
    const memory = addon.memoryMap(fd, 0, 8192, true);
    const sum = await inWorker(
      `const memory = addon.memoryMap(data.fd, 0, 8192, true);
       new Uint8Array(memory)[5000] = 77;
       const out = new Uint8Array(32);
       addon.blake3Pages(memory, Uint32Array.of(1), 1, out);
       addon.memoryUnmap(memory);
       return [Buffer.from(out).toString('hex'), memory.byteLength];`,
      { fd },
    );
    const out = new Uint8Array(32);
    addon.blake3Pages(memory, Uint32Array.of(1), 1, out);
    expect(new Uint8Array(memory)[5000]).toBe(77);
    expect(sum).toEqual([Buffer.from(out).toString('hex'), 0]);
    addon.memoryUnmap(memory);
    closeSync(fd);
  });

  it('takes its mappings with it when it ends, and leaves those of others', async () => {
    const fd = addon.memoryCreate('gaia-ended', 4096);
    const memory = addon.memoryMap(fd, 0, 4096, true);
    const count = await inWorker(
      `globalThis.kept = [1, 2, 3].map(() => addon.memoryMap(data.fd, 0, 4096, true));
       return globalThis.kept.length;`,
      { fd },
    );
    expect([count, mappingCount('gaia-ended')]).toEqual([3, 1]);
    new Uint8Array(memory)[0] = 1;
    addon.memoryUnmap(memory);
    closeSync(fd);
  });

  it('has a dispatch level of its own', async () => {
    const before = addon.blake3Level();
    expect(await inWorker(`return addon.blake3Level('portable');`, {})).toBe('portable');
    expect(addon.blake3Level()).toBe(before);
  });

  it('can be one of many that come and go while others work', async () => {
    const work = `let last = 0;
      for (let i = 0; i < 50; i += 1) {
        const fd = addon.memoryCreate('gaia-many', 65536);
        const memory = addon.memoryMap(fd, 0, 65536, true);
        require('node:fs').closeSync(fd);
        addon.blake3Pages(memory, Uint32Array.from({ length: 16 }, (_, page) => page), 16, new Uint8Array(512));
        last = addon.crc32c(new Uint8Array(memory), last);
        if (i % 2 === 0) addon.memoryUnmap(memory);
        try { addon.memoryMap(-1, 0, 1, true); } catch {}
      }
      return last;`;
    const results = await Promise.all(Array.from({ length: 6 }, () => inWorker(work, {})));
    expect(new Set(results).size).toBe(1);
    expect(mappingCount('gaia-many')).toBe(0);
  });

  it('that is terminated in the middle of its work takes its mappings with it', async () => {
    const source = `const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData);
      const kept = [];
      for (let i = 0; ; i += 1) {
        const fd = addon.memoryCreate('gaia-terminated', 4096);
        kept.push(addon.memoryMap(fd, 0, 4096, true));
        require('node:fs').closeSync(fd);
        if (i === 10) parentPort.postMessage('busy');
        if (kept.length > 100) addon.memoryUnmap(kept.shift());
      }`;
    const worker = new Worker(source, { eval: true, workerData: file, trackUnmanagedFds: false });
    await once(worker, 'message');
    await worker.terminate();
    expect(mappingCount('gaia-terminated')).toBe(0);
  });
});
