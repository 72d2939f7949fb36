/**
 * How fast one core hashes 14,000 scattered pages (57.344 MB) of 256 MiB, by dispatch level: MB/s are hz × 57.344.
 * Run with `npx vitest bench --run --project native test/native/page-hash`.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync } from 'node:fs';
import { bench, describe } from 'vitest';
import { loadAddon } from './addon.ts';

const addon = loadAddon();
const memoryBytes = 256 * 2 ** 20;
const count = 14_000;

const fd = addon.memoryCreate('gaia-bench', memoryBytes);
const memory = addon.memoryMap(fd, 0, memoryBytes, true);
closeSync(fd);
randomFillSync(new Uint8Array(memory));

// Steps of a prime scatter the pages and repeat none.
const pages = Uint32Array.from({ length: count }, (_, i) => (i * 40_503) % (memoryBytes / 4096));
const out = new Uint8Array(32 * count);

describe('14,000 scattered pages', () => {
  for (const level of ['avx512', 'avx2', 'sse41', 'portable'] as const)
    bench(
      level,
      () => {
        addon.blake3Pages(memory, pages, count, out);
      },
      { iterations: 15, time: 500, setup: () => void addon.blake3Level(level) },
    );
});
