/** What finding the divergent pages costs: every level at which an exchange may begin, really run, and on modelled links. */
import { packBitmap, packedBytesMax } from '../../merkle/packed-bitmap.ts';
import { ExchangeChoice, type ExchangeLink } from '../../merkle/exchange-choice.ts';
import { topLevelOf, Traversal } from '../../merkle/traversal.ts';
import { MerkleTree } from '../../merkle/tree.ts';
import { PageHasher } from '../../vmm/io/page-hasher.ts';
import { bitmapOf, drawn, type PageMemory, realPageOf, scatteredPages } from './page-memory.ts';

export interface Link extends ExchangeLink {
  readonly name: string;
}

/** Round trips as switched Ethernet has them. */
export const links: readonly Link[] = [
  { name: '1 Gb/s', roundTripUs: 100, bytesPerUs: 125 },
  { name: '10 Gb/s', roundTripUs: 30, bytesPerUs: 1_250 },
  { name: '100 Gb/s', roundTripUs: 10, bytesPerUs: 12_500 },
];

/** An exchange that begins at `level`. */
export interface Exchange {
  readonly level: number;
  /** Hashes and answers. */
  readonly bytes: number;
  /** Pairs of hashes and answer. */
  readonly exchanges: number;
  /** Work of both sides. */
  readonly localUs: number;
}

export interface ExchangeCase {
  readonly pages: number;
  readonly divergent: number;
  readonly treeMs: number;
  /** Both bitmaps and the root. */
  readonly aroundBytes: number;
  /** By level. */
  readonly exchanges: readonly Exchange[];
  /** By link: the level that the rule takes after some rounds of the same kind. */
  readonly chosen: readonly number[];
}

/** Time of an exchange on a link, microseconds. */
export function exchangeUs({ bytes, exchanges, localUs }: Exchange, link: ExchangeLink): number {
  return exchanges * link.roundTripUs + bytes / link.bytesPerUs + localUs;
}

/** Both sides' trees over the same union, and the exchanges between them. */
export class ExchangeCosts {
  readonly #memory: PageMemory;
  readonly #leader: MerkleTree;
  readonly #backup: MerkleTree;
  readonly #pages: Uint32Array;
  readonly #bitmap: Uint32Array;
  readonly #packed = new Uint8Array(packedBytesMax(2 ** 20));
  readonly #one = new Traversal();
  readonly #other = new Traversal();
  #treeMs = 0;

  constructor(memory: PageMemory, count: number) {
    this.#memory = memory;
    this.#leader = new MerkleTree(new PageHasher(memory.blocks));
    this.#backup = new MerkleTree(new PageHasher(memory.blocks));
    this.#pages = scatteredPages(count);
    this.#bitmap = bitmapOf(this.#pages);
    this.#leader.build(this.#bitmap);
    this.#backup.build(this.#bitmap);
  }

  /** A share of the pages differs, drawn by lot; both find out which. */
  measure(share: number, seed: number): ExchangeCase {
    const began = performance.now();
    this.#leader.build(this.#bitmap);
    this.#treeMs = performance.now() - began;
    const changed = drawn(this.#pages, share, seed);
    const divergent = new Set(changed);
    const changedBits = bitmapOf(this.#pages.filter((page) => divergent.has(realPageOf(page))));
    this.#memory.flip(changed);
    const expected = this.#backup.update(this.#bitmap, changedBits);
    try {
      return this.#exchanges(expected);
    } finally {
      this.#memory.flip(changed);
      this.#backup.update(this.#bitmap, changedBits);
    }
  }

  #exchanges(expected: number): ExchangeCase {
    const exchanges: Exchange[] = [];
    for (let level = 0; level <= topLevelOf(this.#leader); level++) {
      exchanges.push(this.#exchange(level));
      if (this.#one.divergentCount !== expected || this.#other.divergentCount !== expected)
        throw new Error(`${expected} pages differ, found were ${this.#one.divergentCount}`);
    }
    const leaves = this.#leader.leafCount;
    const chosen = links.map((link) => {
      const choice = new ExchangeChoice(link);
      for (let round = 0; round < 8; round++) choice.observe(leaves, this.#one.divergentLeaves, expected);
      return choice.levelFor(leaves);
    });
    return {
      pages: leaves,
      divergent: expected,
      treeMs: this.#treeMs,
      aroundBytes: 2 * packBitmap(this.#bitmap, this.#packed) + 32,
      exchanges,
      chosen,
    };
  }

  #exchange(level: number): Exchange {
    this.#one.begin(this.#leader, level);
    this.#other.begin(this.#backup, level);
    let [bytes, exchanges, localUs] = [0, 0, 0];
    while (!this.#one.finished) {
      const hashes = new Uint8Array(this.#one.hashBytes);
      const answer = new Uint8Array(this.#one.answerBytes);
      const began = performance.now();
      this.#one.writeHashes(hashes);
      this.#other.compare(hashes, answer);
      this.#one.advance(answer);
      localUs += (performance.now() - began) * 1000;
      // The backup does so while the answer is on its way.
      this.#other.advance(answer);
      bytes += hashes.length + answer.length;
      exchanges++;
    }
    return { level, bytes, exchanges, localUs };
  }
}
