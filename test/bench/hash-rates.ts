/** How fast pages are hashed: ours at every level and with two threads, beside the peers, all in turn. */
import { MerkleTree } from '../../merkle/tree.ts';
import { native } from '../../native/binding.ts';
import { PageHasher } from '../../vmm/io/page-hasher.ts';
import type { BenchOptions } from './bench.ts';
import type { Measurements } from './measurements.ts';
import { bitmapOf, type PageMemory, scatteredPages } from './page-memory.ts';
import { packagePeers, type NativePeers } from './page-peers.ts';

/** The largest number of dirty pages of the proposal. */
export const proposalPages = 14_295;
const levels = ['avx512', 'avx2', 'sse41', 'portable'] as const;
type Level = (typeof levels)[number];

export const hashRow = {
  ours: 'batched over pages',
  level: (level: string) => `batched over pages, ${level}`,
  threads: 'batched over pages, two threads',
  perPage: 'BLAKE3 in C, a call for each page',
  memcmp: 'memcmp',
  memcpy: 'memcpy',
  tree: (count: number) => `tree of ${count.toLocaleString('en-US')} pages`,
  treeAt: (level: string) => `tree of ${proposalPages.toLocaleString('en-US')} pages, ${level}`,
} as const;

export class HashRates {
  readonly #measurements: Measurements;
  readonly #memory: PageMemory;
  readonly #twin: PageMemory;
  readonly #peers: NativePeers;
  readonly #pages = scatteredPages(proposalPages);
  readonly #out = new Uint8Array(32 * proposalPages);
  readonly #copy = new ArrayBuffer(4096 * proposalPages);
  readonly #best = native().blake3Level() as Level;

  /** `twin` holds the same as `memory`. */
  constructor(measurements: Measurements, memory: PageMemory, twin: PageMemory, peers: NativePeers) {
    this.#measurements = measurements;
    this.#memory = memory;
    this.#twin = twin;
    this.#peers = peers;
  }

  /** Names of the packages' rows. */
  readonly packages = packagePeers();

  measure(runs: number, { progress, signal }: BenchOptions): void {
    const tree = new MerkleTree(new PageHasher(this.#memory.blocks));
    const bitmap = bitmapOf(this.#pages);
    for (let run = 0; run <= runs; run++) {
      signal.throwIfAborted();
      progress(`hash rates, run ${run} of ${runs}`);
      // The first run makes the code hot and is not counted.
      this.#round(tree, bitmap, run > 0);
    }
  }

  #round(tree: MerkleTree, bitmap: Uint32Array, counts: boolean): void {
    const { memory } = this.#memory;
    const count = proposalPages;
    const time = (name: string, unit: 'GB/s' | 'ms', work: () => void): void => {
      const began = performance.now();
      work();
      const ms = performance.now() - began;
      if (counts) this.#measurements.add(name, unit, unit === 'ms' ? ms : (count * 4096) / ms / 1e6);
    };
    const hash = (): void => native().blake3Pages(memory, this.#pages, count, this.#out);
    time(hashRow.ours, 'GB/s', hash);
    time(hashRow.memcmp, 'GB/s', () => this.#compare());
    time(hashRow.perPage, 'GB/s', () => this.#peers.hashEach(memory, this.#pages, count, this.#copy));
    time(hashRow.memcpy, 'GB/s', () => this.#peers.copyEach(memory, this.#pages, count, this.#copy));
    for (const peer of this.packages) {
      time(peer.name, 'GB/s', () => {
        for (const page of this.#pages) peer.hash(Buffer.from(memory, page * 4096, 4096));
      });
    }
    for (const level of levels) {
      if (!this.#has(level)) continue;
      time(hashRow.level(level), 'GB/s', hash);
      if (level === 'avx512' || level === 'avx2') time(hashRow.treeAt(level), 'ms', () => tree.build(bitmap));
    }
    native().blake3Level(this.#best);
    native().blake3Threads(2);
    time(hashRow.threads, 'GB/s', hash);
    native().blake3Threads(1);
    time(hashRow.tree(count), 'ms', () => tree.build(bitmap));
  }

  #compare(): void {
    const equal = this.#peers.compareEach(this.#memory.memory, this.#pages, proposalPages, this.#twin.memory);
    if (equal !== proposalPages) throw new Error(`${equal} of ${proposalPages} pages were equal, not all`);
  }

  /** Sets the level, where the processor has it. */
  #has(level: Level): boolean {
    try {
      return native().blake3Level(level) === level;
    } catch {
      return false;
    }
  }
}
