/**
 * Where the next exchange begins: at the top of the tree (the log(N) traversal), at its leaves (the flat exchange)
 * or in between. A traversal that begins at level L needs L + 1 exchanges and sends the hashes of
 *
 *   all nodes of level L,  then of each level below it the children of the nodes that differ.
 *
 * What differs is expected to be what differed in the last rounds, as a share of the nodes of each level, so that
 * divergent pages that lie together count as what they are. Time is what is compared: the wait of each exchange and
 * the transport and handling of each hash.
 */
import { DEFAULT_FAN_OUT } from './tree.ts';
import { EXCHANGE_HASH_BYTES, topLevelOf } from './traversal.ts';

export interface ExchangeLink {
  /** From sending a message until its answer is there, without what its size costs. */
  readonly roundTripUs: number;
  readonly bytesPerUs: number;
}

/** Writing a hash on one side and comparing it on the other; measured, see docs/merkle.md. */
const HANDLING_US_PER_HASH = 0.025;
/** Of a new round in the shares that are expected. */
const WEIGHT = 0.25;
/** Share of divergent pages before any round was seen: the proposal's 1,283 of 14,295, scattered. */
const FIRST_DIVERGENCE = 0.09;

export class ExchangeChoice {
  readonly #link: ExchangeLink;
  readonly #fanOut: number;
  /** Of the nodes of each level, how many differ, 0 to 1. */
  readonly #shares: number[] = [];

  constructor(link: ExchangeLink, fanOut = DEFAULT_FAN_OUT) {
    this.#link = link;
    this.#fanOut = fanOut;
  }

  /** The level at which an exchange over `leafCount` leaves is expected to end soonest. */
  levelFor(leafCount: number): number {
    const top = topLevelOf({ levelCount: this.#levelsOf(leafCount) });
    let best = 0;
    for (let level = 1; level <= top; level++) {
      if (this.expectedUs(leafCount, level) < this.expectedUs(leafCount, best)) best = level;
    }
    return best;
  }

  /** Expected time of an exchange that begins at `level`, microseconds. */
  expectedUs(leafCount: number, level: number): number {
    let hashes = this.#nodesOf(leafCount, level);
    for (let below = level - 1; below >= 0; below--) {
      const parents = this.#shareOf(below + 1) * this.#nodesOf(leafCount, below + 1);
      hashes += Math.min(this.#nodesOf(leafCount, below), Math.max(1, parents) * this.#fanOut);
    }
    const { roundTripUs, bytesPerUs } = this.#link;
    return (level + 1) * roundTripUs + hashes * (EXCHANGE_HASH_BYTES / bytesPerUs + HANDLING_US_PER_HASH);
  }

  /**
   * Takes in what an exchange found: the first `divergentCount` leaves, ascending, of `leafCount`. Rounds with equal
   * roots need no exchange and are not told here.
   */
  observe(leafCount: number, divergentLeaves: Uint32Array, divergentCount: number): void {
    if (leafCount === 0 || divergentCount === 0) return;
    let width = 1;
    for (let level = 0; level < this.#levelsOf(leafCount); level++, width *= this.#fanOut) {
      let nodes = 0;
      let last = -1;
      for (let at = 0; at < divergentCount; at++) {
        const node = Math.floor((divergentLeaves[at] ?? 0) / width);
        if (node !== last) nodes++;
        last = node;
      }
      const share = nodes / this.#nodesOf(leafCount, level);
      const before = this.#shares[level];
      this.#shares[level] = before === undefined ? share : before + WEIGHT * (share - before);
    }
  }

  #shareOf(level: number): number {
    return this.#shares[level] ?? 1 - (1 - FIRST_DIVERGENCE) ** (this.#fanOut ** level);
  }

  #nodesOf(leafCount: number, level: number): number {
    return Math.ceil(leafCount / this.#fanOut ** level);
  }

  #levelsOf(leafCount: number): number {
    let levels = 1;
    for (let nodes = leafCount; nodes > 1; nodes = Math.ceil(nodes / this.#fanOut)) levels++;
    return levels;
  }
}
