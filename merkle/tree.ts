/**
 * The Merkle tree over exactly the pages of a union bitmap (proposal §2.3.2, Figure 6: the tree is adjusted
 * to the union, so two replicas that agree on it build trees of one shape, whatever each found dirty).
 *
 *   level 0     one hash for each page of the union, in ascending order
 *   level k     one hash for each group of `fanOut` nodes of level k - 1; the last group may be smaller
 *   top level   a single node
 *   root        hash of (top node, leaves, levels, fan-out)
 *
 * The tree depends on nothing but the bitmap, the contents of its pages and the fan-out. What is hashed
 * differs in length by its kind (a page 4,096 bytes, a group 32 times the fan-out, the root 48), so that no
 * hash of one kind can stand for one of another.
 */
import { countBits, listBits } from './bitmap.ts';
import { HASH_BYTES, type PageHasher } from './page-hasher.ts';

const DEFAULT_FAN_OUT = 16;
/** A group is hashed as one piece of at most 1,024 bytes. */
const FAN_OUT_MAX = 32;
const ROOT_PIECE_BYTES = 48;

export class MerkleTree {
  readonly fanOut: number;
  readonly #hasher: PageHasher;
  /** Invariant: levels above `#levelCount` are left over from a larger tree and mean nothing. */
  readonly #levels: Uint8Array[] = [];
  readonly #counts: number[] = [];
  readonly #root = new Uint8Array(HASH_BYTES);
  readonly #rootPiece = new Uint8Array(ROOT_PIECE_BYTES);
  #pages = new Uint32Array(0);
  #levelCount = 0;

  constructor(hasher: PageHasher, fanOut = DEFAULT_FAN_OUT) {
    if (!Number.isInteger(fanOut) || fanOut < 2 || fanOut > FAN_OUT_MAX) {
      throw new RangeError(`The fan-out must be a whole number from 2 to ${FAN_OUT_MAX}, not ${fanOut}`);
    }
    this.#hasher = hasher;
    this.fanOut = fanOut;
  }

  /** Hashes the pages of the bitmap as they are now, and everything above them. */
  build(bitmap: Uint32Array): void {
    const count = countBits(bitmap);
    if (this.#pages.length < count) this.#pages = new Uint32Array(grown(this.#pages.length, count));
    listBits(bitmap, this.#pages);
    const leaves = this.#level(0, count);
    if (count > 0) this.#hasher.hashPages(this.#pages, count, leaves);
    this.#levelCount = 1;
    while (this.nodeCount(this.#levelCount - 1) > 1) this.#buildLevel(this.#levelCount++);
    this.#buildRoot();
  }

  /** A level's memory ends with room for a whole last group, whose missing children count as zeros. */
  #level(level: number, count: number): Uint8Array {
    const needed = (count + this.fanOut) * HASH_BYTES;
    let hashes = this.#levels[level];
    if (hashes === undefined || hashes.length < needed) {
      hashes = new Uint8Array(grown(hashes?.length ?? 0, needed));
      this.#levels[level] = hashes;
    }
    this.#counts[level] = count;
    return hashes;
  }

  #buildLevel(level: number): void {
    const below = this.levelHashes(level - 1);
    const belowCount = this.nodeCount(level - 1);
    const count = Math.ceil(belowCount / this.fanOut);
    below.fill(0, belowCount * HASH_BYTES, count * this.fanOut * HASH_BYTES);
    this.#hasher.hashParents(below, this.fanOut * HASH_BYTES, count, this.#level(level, count));
  }

  #buildRoot(): void {
    const piece = this.#rootPiece;
    piece.fill(0);
    if (this.leafCount > 0) {
      const top = this.levelHashes(this.#levelCount - 1);
      for (let position = 0; position < HASH_BYTES; position++) piece[position] = top[position] ?? 0;
    }
    const view = new DataView(piece.buffer);
    view.setUint32(HASH_BYTES, this.leafCount, true);
    view.setUint32(HASH_BYTES + 4, this.#levelCount, true);
    view.setUint32(HASH_BYTES + 8, this.fanOut, true);
    this.#hasher.hashParents(piece, ROOT_PIECE_BYTES, 1, this.#root);
  }

  /** 32 bytes, overwritten by the next `build`. */
  root(): Uint8Array {
    return this.#root;
  }

  get leafCount(): number {
    return this.nodeCount(0);
  }

  /** Levels from the leaves to the top node, both included. */
  get levelCount(): number {
    return this.#levelCount;
  }

  nodeCount(level: number): number {
    return this.#counts[level] ?? 0;
  }

  /** Hash of node i at byte 32 * i; what lies behind the level's last node means nothing. */
  levelHashes(level: number): Uint8Array {
    const hashes = this.#levels[level];
    if (hashes === undefined || level >= this.#levelCount)
      throw new RangeError(`The tree has no level ${level}`);
    return hashes;
  }

  /** Hash of one node, as a view. */
  hashes(level: number, node: number): Uint8Array {
    if (node < 0 || node >= this.nodeCount(level)) throw new RangeError(`Level ${level} has no node ${node}`);
    return this.levelHashes(level).subarray(node * HASH_BYTES, (node + 1) * HASH_BYTES);
  }

  /** Page number of a leaf. */
  pageOf(leaf: number): number {
    return this.#pages[leaf] ?? 0;
  }
}

/** At least `needed`, and at least half as much again as before: the buffers of a run settle soon. */
export function grown(had: number, needed: number): number {
  return Math.max(needed, Math.ceil(had * 1.5));
}
