import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { loadAddon } from './addon.ts';

/** The oracle: BLAKE3's reference implementation in Rust, compiled to WebAssembly by others. */
const oracle = createRequire(import.meta.url)('blake3') as { hash(input: Uint8Array): Buffer };

const addon = loadAddon();
const best = addon.blake3Level() as Level;
const all = ['portable', 'sse41', 'avx2', 'avx512'] as const;
type Level = (typeof all)[number];

function isAvailable(level: Level): boolean {
  try {
    return addon.blake3Level(level) === level;
  } catch {
    return false;
  } finally {
    addon.blake3Level(best);
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const hashOf = (bytes: Uint8Array): string => oracle.hash(bytes).toString('hex');

/** The input of BLAKE3's official test vectors: 0, 1, ... 250, 0, 1, ... */
const vectorInput = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, (_, i) => i % 251);

/** From BLAKE3's official test_vectors.json: input bytes and the first 32 bytes of the hash. */
const vectors: readonly (readonly [number, string])[] = [
  [0, 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'],
  [1, '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213'],
  [1024, '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7'],
  [1025, 'd00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444'],
  [4096, '015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969'],
  [4097, '9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995'],
];

/** `count` hashes of 32 bytes, as hexadecimal digits. */
function hashes(out: Uint8Array, count: number): string[] {
  return Array.from({ length: count }, (_, i) => hex(out.subarray(32 * i, 32 * i + 32)));
}

const memoryPages = 64;
const memoryFd = addon.memoryCreate('gaia-pages', memoryPages * 4096);
const memory = addon.memoryMap(memoryFd, 0, memoryPages * 4096, true);
closeSync(memoryFd);
afterAll(() => addon.memoryUnmap(memory));

let state = 1;
new Uint8Array(memory).forEach((_, i, bytes) => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  bytes[i] = state >>> 24;
});
new Uint8Array(memory, 0, 4096).fill(0);
new Uint8Array(memory, 4096, 4096).set(vectorInput(4096));
const pageHashes = Array.from({ length: memoryPages }, (_, page) =>
  hashOf(new Uint8Array(memory, page * 4096, 4096)),
);

/** Memory of `bytes` after which nothing is mapped: a read past its end kills the process. */
function guardedMemory(name: string, bytes: number): ArrayBuffer {
  const fd = addon.memoryCreate(name, 32 * bytes);
  const buffers = Array.from({ length: 16 }, (_, i) => addon.memoryMap(fd, 2 * i * bytes, bytes, true));
  closeSync(fd);
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const mappings = lines
    .filter((line) => line.includes(`/memfd:${name} `))
    .map((line) =>
      (/^(\w+)-(\w+) \S+ (\w+)/.exec(line) ?? []).slice(1).map((word) => Number.parseInt(word, 16)),
    )
    .map(([start, end, offset = NaN]) => ({ start, end, buffer: buffers[offset / (2 * bytes)] }));
  // Of two neighbours the lower one has a hole behind it once the upper one is gone.
  const lower = mappings.find(({ end }) => mappings.some(({ start }) => start === end))?.buffer;
  buffers.filter((buffer) => buffer !== lower).forEach((buffer) => addon.memoryUnmap(buffer));
  if (lower === undefined) throw new Error('No two mappings are neighbours');
  return lower;
}

describe('BLAKE3 of any bytes', () => {
  it.each(vectors)('agrees with the official test vector of %i bytes', (bytes, hash) => {
    expect(hex(addon.blake3(vectorInput(bytes)))).toBe(hash);
    expect(hashOf(vectorInput(bytes))).toBe(hash);
  });

  it('takes shared buffers and windows', () => {
    const shared = new Uint8Array(new SharedArrayBuffer(100)).fill(5);
    expect(hex(addon.blake3(shared.subarray(10, 20)))).toBe(hashOf(new Uint8Array(10).fill(5)));
  });
});

describe.each(all)('batched hashing at level %s', (level) => {
  // Skipped in sight of all where the CPU lacks the level.
  const here = it.runIf(isAvailable(level));

  beforeAll(() => {
    if (isAvailable(level)) addon.blake3Level(level);
  });
  afterAll(() => {
    addon.blake3Level(best);
  });

  here('gives pages their ordinary hashes, in the order asked for, for every size of batch', () => {
    for (let count = 0; count <= 3 * 16 + 1; count += 1) {
      const pages = Uint32Array.from({ length: count }, (_, i) => (i * 37 + count) % memoryPages);
      const out = new Uint8Array(32 * count + 8).fill(99);
      addon.blake3Pages(memory, pages, count, out);
      expect(hashes(out, count)).toEqual([...pages].map((page) => pageHashes[page]));
      expect([...out.subarray(32 * count)]).toEqual([99, 99, 99, 99, 99, 99, 99, 99]);
    }
  });

  here('agrees with the official test vectors of a page and of a chunk', () => {
    const out = new Uint8Array(64);
    addon.blake3Pages(memory, Uint32Array.of(1), 1, out);
    addon.blake3Parents(vectorInput(1024), 1024, 1, out.subarray(32));
    expect(hashes(out, 2)).toEqual([new Map(vectors).get(4096), new Map(vectors).get(1024)]);
  });

  here('agrees with the oracle on any number of bytes, below and above a subtree of 256 chunks', () => {
    const limit = 256 * 1024;
    const around = [limit, 2 * limit, 3 * limit, 4 * limit + 70_000].flatMap((n) => [
      n - 1,
      n,
      n + 1,
      n + 1024,
    ]);
    const chunks = Array.from({ length: 40 }, (_, i) => i * 1024).flatMap((n) => [
      n,
      n + 1,
      n + 64,
      n + 1023,
    ]);
    const input = vectorInput(5 * limit);
    for (const bytes of [2, 3, 63, 65, 127, 128, 102_400, ...chunks, ...around])
      expect([bytes, hex(addon.blake3(input.subarray(0, bytes)))]).toEqual([
        bytes,
        hashOf(input.subarray(0, bytes)),
      ]);
  });

  here('reads no byte past the end of its input', () => {
    const bytes = 20 * 4096;
    const guarded = guardedMemory(`gaia-guarded-${level}`, bytes);
    const whole = new Uint8Array(guarded);
    whole.set(vectorInput(bytes));
    const last = hashOf(whole.subarray(bytes - 4096));
    const out = new Uint8Array(40 * 32);
    for (let count = 1; count <= 40; count += 1) {
      addon.blake3Pages(guarded, new Uint32Array(count).fill(19), count, out);
      expect(hashes(out, count)).toEqual(new Array<string>(count).fill(last));
      for (const pieceBytes of [1, 32, 64, 100, 512, 1000, 1024]) {
        const pieces = whole.subarray(bytes - count * pieceBytes);
        addon.blake3Parents(pieces, pieceBytes, count, out);
        expect(hex(out.subarray((count - 1) * 32, count * 32))).toBe(
          hashOf(whole.subarray(bytes - pieceBytes)),
        );
      }
      for (const more of [0, 1, 64, 1000]) {
        const end = whole.subarray(bytes - count * 1024 - more);
        expect(hex(addon.blake3(end))).toBe(hashOf(end));
      }
    }
    addon.memoryUnmap(guarded);
  });

  here('hashes as many pages as counted, of a longer list, and repeated ones too', () => {
    const pages = Uint32Array.of(5, 5, 63, 1, 2, 3);
    const out = new Uint8Array(6 * 32);
    addon.blake3Pages(memory, pages, 3, out);
    expect(hashes(out, 3)).toEqual([pageHashes[5], pageHashes[5], pageHashes[63]]);
    expect(out.subarray(96).every((byte) => byte === 0)).toBe(true);
  });

  here('takes memory of its own, whose last part of a page is no page', () => {
    const own = new ArrayBuffer(4096 + 100);
    const bytes = new Uint8Array(own);
    bytes.set(vectorInput(4096 + 100));
    const out = new Uint8Array(32);
    addon.blake3Pages(own, Uint32Array.of(0), 1, out);
    expect(hex(out)).toBe(hashOf(bytes.subarray(0, 4096)));
    expect(() => addon.blake3Pages(own, Uint32Array.of(1), 1, out)).toThrow(RangeError);
  });

  here('refuses a page past the end wherever it stands in the list', () => {
    const out = new Uint8Array(32 * 40);
    for (const position of [0, 15, 16, 39]) {
      for (const page of [memoryPages, 0xffff_ffff]) {
        const pages = new Uint32Array(40);
        pages[position] = page;
        expect(() => addon.blake3Pages(memory, pages, 40, out)).toThrow(
          new RangeError(
            `Argument pages of blake3Pages holds page ${page} at index ${position}, but the memory has 64 pages`,
          ),
        );
      }
    }
  });

  here('gives pieces of every length their ordinary hashes', () => {
    for (let pieceBytes = 1; pieceBytes <= 1024; pieceBytes += 1) {
      const input = vectorInput(pieceBytes * 3 + 1).subarray(1);
      const out = new Uint8Array(96);
      addon.blake3Parents(input, pieceBytes, 3, out);
      const pieces = [0, 1, 2].map((i) => input.subarray(i * pieceBytes, (i + 1) * pieceBytes));
      expect(hashes(out, 3)).toEqual(pieces.map(hashOf));
    }
  });

  here('gives any number of pieces their ordinary hashes and touches nothing else', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1024 }),
        fc.integer({ min: 0, max: 40 }),
        fc.nat(),
        (pieceBytes, count, seed) => {
          const input = Uint8Array.from(
            { length: pieceBytes * count + 5 },
            (_, i) => Math.imul(i + seed, 2_654_435_761) >>> 24,
          );
          const out = new Uint8Array(32 * count + 4).fill(99);
          addon.blake3Parents(input, pieceBytes, count, out);
          const pieces = Array.from({ length: count }, (_, i) =>
            input.subarray(i * pieceBytes, (i + 1) * pieceBytes),
          );
          expect(hashes(out, count)).toEqual(pieces.map(hashOf));
          expect([...out.subarray(32 * count)]).toEqual([99, 99, 99, 99]);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('pieces of a list', () => {
  it('go each to its own place, at every level and for every size of batch', () => {
    const input = vectorInput(512 * 200);
    for (const level of all.filter(isAvailable)) {
      addon.blake3Level(level);
      for (const count of [0, 1, 2, 7, 15, 16, 17, 33, 130]) {
        const which = Uint32Array.from({ length: count + 1 }, (_, i) => (i * 77) % 200);
        const out = new Uint8Array(32 * 200).fill(99);
        addon.blake3ParentsAt(input, 512, which, count, out);
        const chosen = new Set(which.subarray(0, count));
        expect(hashes(out, 200)).toEqual(
          Array.from({ length: 200 }, (_, i) =>
            chosen.has(i) ? hashOf(input.subarray(512 * i, 512 * i + 512)) : '63'.repeat(32),
          ),
        );
      }
    }
    addon.blake3Level(best);
  });

  it('are refused past the end of the input or of the hashes', () => {
    const which = Uint32Array.of(1, 4);
    expect(() => addon.blake3ParentsAt(new Uint8Array(400), 100, which, 2, new Uint8Array(999))).toThrow(
      new RangeError(
        'Argument which of blake3ParentsAt holds piece 4 at index 1, but input and out have 4 pieces',
      ),
    );
    expect(() => addon.blake3ParentsAt(new Uint8Array(500), 100, which, 2, new Uint8Array(159))).toThrow(
      RangeError,
    );
    expect(() => addon.blake3ParentsAt(new Uint8Array(500), 100, which, 3, new Uint8Array(160))).toThrow(
      /count of blake3ParentsAt must not pass the 2 piece indexes/,
    );
  });
});

describe('hashing with several threads', () => {
  afterAll(() => void addon.blake3Threads(1));

  it('is off at first, and can be set', () => {
    expect(addon.blake3Threads()).toBe(1);
    expect(addon.blake3Threads(4)).toBe(4);
    expect(addon.blake3Threads(2)).toBe(2);
    for (const count of [0, 65, 1.5]) expect(() => addon.blake3Threads(count)).toThrow(RangeError);
    expect(addon.blake3Threads()).toBe(2);
  });

  it.each([1, 2, 3, 8])('gives the same hashes with %i of them, time after time', (threads) => {
    addon.blake3Threads(threads);
    const count = 5000;
    const pages = Uint32Array.from({ length: count }, (_, i) => (i * 37) % memoryPages);
    const expected = [...pages].map((page) => pageHashes[page]);
    for (let round = 0; round < 20; round += 1) {
      const out = new Uint8Array(32 * count);
      addon.blake3Pages(memory, pages, count, out);
      expect(hashes(out, count)).toEqual(expected);
    }
    const parents = new Uint8Array(32 * 4000);
    addon.blake3Parents(new Uint8Array(memory), 64, 4000, parents);
    const some = [0, 1, 127, 128, 3999];
    expect(some.map((i) => hex(parents.subarray(32 * i, 32 * i + 32)))).toEqual(
      some.map((i) => hashOf(new Uint8Array(memory, 64 * i, 64))),
    );
  });

  it('names the first page past the end, whoever came upon it', () => {
    addon.blake3Threads(4);
    const pages = new Uint32Array(5000);
    for (const position of [700, 1400, 4999]) pages[position] = memoryPages + position;
    for (let round = 0; round < 50; round += 1)
      expect(() => addon.blake3Pages(memory, pages, 5000, new Uint8Array(32 * 5000))).toThrow(
        `holds page ${memoryPages + 700} at index 700, but`,
      );
  });

  it('lets the others do a part of the work', async () => {
    addon.blake3Threads(2);
    const pages = Uint32Array.from({ length: 50_000 }, (_, i) => i % memoryPages);
    const out = new Uint8Array(32 * pages.length);
    // The kernel decides when the other one runs: whoever only woke up and slept again needs far less.
    await vi.waitFor(
      () => {
        addon.blake3Pages(memory, pages, pages.length, out);
        expect(helperRunMs()).toBeGreaterThan(50);
      },
      { timeout: 60_000, interval: 1 },
    );
  });

  it('ends its threads when it is set back', async () => {
    addon.blake3Threads(5);
    addon.blake3Pages(memory, new Uint32Array(5000), 5000, new Uint8Array(32 * 5000));
    addon.blake3Threads(1);
    // A thread that has been joined may stay in the kernel's list a moment longer.
    await vi.waitFor(() => expect(threads().map(({ name }) => name)).not.toContain('gaia-hash'));
  });
});

/** Of each thread of this process: its name, and how long it has run. */
function threads(): { name: string; runMs: number }[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      const folder = `/proc/self/task/${id}`;
      const [runNs] = readFileSync(`${folder}/schedstat`, 'utf8').split(' ');
      return [{ name: readFileSync(`${folder}/comm`, 'utf8').trim(), runMs: Number(runNs) / 1e6 }];
    } catch {
      // It ended since it was listed.
      return [];
    }
  });
}

function helperRunMs(): number {
  return threads().reduce((sum, { name, runMs }) => sum + (name === 'gaia-hash' ? runMs : 0), 0);
}

describe('the dispatch level', () => {
  it('is the highest that the CPU has, and can be lowered and raised again', () => {
    expect(best).toBe(all.findLast(isAvailable));
    expect(addon.blake3Level('portable')).toBe('portable');
    expect(addon.blake3Level()).toBe('portable');
    expect(addon.blake3Level(best)).toBe(best);
  });
});
