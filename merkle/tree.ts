/**
 * The Merkle tree over exactly the pages of a union bitmap (proposal §2.3.2, Figure 6: the tree is adjusted
 * to the union, so two replicas that agree on it build trees of one shape, whatever each found dirty).
 *
 *   level 0     one hash for each page of the union, in ascending order
 *   level k     one hash for each group of `fanOut` nodes of level k - 1; the last group may be smaller
 *   top level   a single node
 *   root        hash of (top node, leaves, levels, fan-out)
 *
 * The tree depends on nothing but the bitmap, the contents of its pages and the fan-out, by whichever road it
 * came about. What is hashed differs in length by its kind (a page 4,096 bytes, a group 32 times the fan-out,
 * the root 48), so that no hash of one kind can stand for one of another.
 */
import { countBits, hasBit, listBits, requireSameSize } from './bitmap.ts';
import { withRoom } from './grow.ts';
import { HashList } from './hash-list.ts';
import { HASH_BYTES, type PageHasher } from './page-hasher.ts';

export const DEFAULT_FAN_OUT = 16;
/** A group is hashed as one piece of at most 1,024 bytes. */
const FAN_OUT_MAX = 32;
const ROOT_PIECE_BYTES = 48;

export class MerkleTree {
  readonly fanOut: number;
  readonly #hasher: PageHasher;
  /**
   * Invariant: behind the last node of a level lie zeros up to the end of its last group; levels from
   * `#levelCount` on are left over from a larger tree and mean nothing.
   */
  readonly #levels: HashList[] = [new HashList()];
  readonly #counts: number[] = [];
  readonly #root = new Uint8Array(HASH_BYTES);
  readonly #rootPiece = new Uint8Array(ROOT_PIECE_BYTES);
  readonly #rootView = new DataView(this.#rootPiece.buffer);
  #pages = new Uint32Array(0);
  #levelCount = 0;
  /** False before the first `build` and after one that its hasher broke off: then nothing here can be relied on. */
  #whole = false;
  /** Where `update` puts the next state of leaves and pages together; they change places with the present one. */
  #nextLeaves = new HashList();
  #nextPages = new Uint32Array(0);
  /** What `update` has to hash: pages and their leaves, later the nodes above them. */
  #stalePages = new Uint32Array(0);
  #staleNodes = new Uint32Array(0);
  readonly #staleHashes = new HashList();

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
    this.#pages = withRoom(this.#pages, count);
    listBits(bitmap, this.#pages);
    const leaves = this.#level(0, count);
    this.#whole = false;
    if (count > 0) this.#hasher.hashPages(this.#pages, count, leaves.bytes);
    this.#buildAbove();
    this.#whole = true;
  }

  /**
   * Becomes what `build(bitmap)` would make of it, as long as no page outside of `changed` has changed since the
   * last `build` or `update`. Hashes only pages that are set in `changed` or were not in the tree; while the pages
   * of the tree stay the same, above them only what they bear on. Returns how many pages it hashed. Refuses
   * bitmaps of two sizes.
   */
  update(bitmap: Uint32Array, changed: Uint32Array): number {
    requireSameSize(bitmap, changed);
    const count = countBits(bitmap);
    const before = this.#whole ? this.leafCount : 0;
    this.#nextPages = withRoom(this.#nextPages, count);
    this.#nextLeaves.reserve(count + this.fanOut);
    listBits(bitmap, this.#nextPages);
    const sameShape = this.#whole && count === before && this.#samePages(count);
    this.#whole = false;
    const stale = sameShape ? this.#listChanged(changed) : this.#moveLeaves(before, count, changed);
    if (!sameShape) {
      [this.#pages, this.#nextPages] = [this.#nextPages, this.#pages];
      const present = this.#levels[0] ?? new HashList();
      this.#levels[0] = this.#nextLeaves;
      this.#nextLeaves = present;
      this.#counts[0] = count;
    }
    this.#hashStale(stale);
    if (!sameShape) this.#buildAbove();
    else if (stale > 0) this.#updateAbove(stale);
    this.#whole = true;
    return stale;
  }

  #samePages(count: number): boolean {
    const [pages, next] = [this.#pages, this.#nextPages];
    for (let leaf = 0; leaf < count; leaf++) if (pages[leaf] !== next[leaf]) return false;
    return true;
  }

  #listChanged(changed: Uint32Array): number {
    const count = this.leafCount;
    let stale = 0;
    this.#stalePages = withRoom(this.#stalePages, count);
    this.#staleNodes = withRoom(this.#staleNodes, count);
    for (let leaf = 0; leaf < count; leaf++) {
      const page = this.#pages[leaf] ?? 0;
      if (!hasBit(changed, page)) continue;
      this.#stalePages[stale] = page;
      this.#staleNodes[stale++] = leaf;
    }
    return stale;
  }

  /** Takes over the hashes of leaves that remain; the others are stale. Both lists of pages ascend. */
  #moveLeaves(before: number, count: number, changed: Uint32Array): number {
    const leaves = this.#levels[0] ?? this.#nextLeaves;
    this.#stalePages = withRoom(this.#stalePages, count);
    this.#staleNodes = withRoom(this.#staleNodes, count);
    let stale = 0;
    let old = 0;
    for (let leaf = 0; leaf < count; leaf++) {
      const page = this.#nextPages[leaf] ?? 0;
      while (old < before && (this.#pages[old] ?? 0) < page) old++;
      if (old < before && this.#pages[old] === page && !hasBit(changed, page)) {
        this.#nextLeaves.copyFrom(leaves, old, leaf);
        continue;
      }
      this.#stalePages[stale] = page;
      this.#staleNodes[stale++] = leaf;
    }
    return stale;
  }

  #hashStale(count: number): void {
    if (count === 0) return;
    this.#staleHashes.reserve(count);
    this.#hasher.hashPages(this.#stalePages, count, this.#staleHashes.bytes);
    const leaves = this.#level(0, this.leafCount);
    for (let at = 0; at < count; at++) leaves.copyFrom(this.#staleHashes, at, this.#staleNodes[at] ?? 0);
  }

  /** Level by level, the groups that hold what changed in the level below. */
  #updateAbove(changed: number): void {
    const nodes = this.#staleNodes;
    let count = changed;
    for (let level = 1; level < this.#levelCount; level++) {
      let groups = 0;
      for (let at = 0; at < count; at++) {
        const group = Math.floor((nodes[at] ?? 0) / this.fanOut);
        if (groups === 0 || nodes[groups - 1] !== group) nodes[groups++] = group;
      }
      count = groups;
      const below = this.#levelAt(level - 1).bytes;
      this.#hasher.hashParentsAt(below, this.fanOut * HASH_BYTES, nodes, count, this.#levelAt(level).bytes);
    }
    this.#buildRoot();
  }

  /** A level's memory ends with room for a whole last group, whose missing children count as zeros. */
  #level(level: number, count: number): HashList {
    const hashes = (this.#levels[level] ??= new HashList());
    hashes.reserve(count + this.fanOut);
    this.#counts[level] = count;
    return hashes;
  }

  #levelAt(level: number): HashList {
    const hashes = this.#levels[level];
    if (hashes === undefined || level >= this.#levelCount) {
      throw new RangeError(`The tree has no level ${level}`);
    }
    return hashes;
  }

  #buildAbove(): void {
    this.#levelCount = 1;
    while (this.nodeCount(this.#levelCount - 1) > 1) this.#buildLevel(this.#levelCount++);
    this.#buildRoot();
  }

  #buildLevel(level: number): void {
    const below = this.#levelAt(level - 1).bytes;
    const belowCount = this.nodeCount(level - 1);
    const count = Math.ceil(belowCount / this.fanOut);
    below.fill(0, belowCount * HASH_BYTES, count * this.fanOut * HASH_BYTES);
    this.#hasher.hashParents(below, this.fanOut * HASH_BYTES, count, this.#level(level, count).bytes);
  }

  #buildRoot(): void {
    const piece = this.#rootPiece;
    piece.fill(0);
    if (this.leafCount > 0) {
      const top = this.levelHashes(this.#levelCount - 1);
      for (let position = 0; position < HASH_BYTES; position++) piece[position] = top[position] ?? 0;
    }
    this.#rootView.setUint32(HASH_BYTES, this.leafCount, true);
    this.#rootView.setUint32(HASH_BYTES + 4, this.#levelCount, true);
    this.#rootView.setUint32(HASH_BYTES + 8, this.fanOut, true);
    this.#hasher.hashParents(piece, ROOT_PIECE_BYTES, 1, this.#root);
  }

  /** 32 bytes, overwritten by the next `build` or `update`. */
  root(): Uint8Array {
    return this.#root;
  }

  get leafCount(): number {
    return this.nodeCount(0);
  }

  /** Levels from the leaves to the top node, both included; 0 before the first `build`. */
  get levelCount(): number {
    return this.#levelCount;
  }

  nodeCount(level: number): number {
    return this.#counts[level] ?? 0;
  }

  /** Hash of node i at byte 32 * i; what lies behind the level's last node means nothing. */
  levelHashes(level: number): Uint8Array {
    return this.#levelAt(level).bytes;
  }

  /** The same hashes, eight words each. */
  levelWords(level: number): Uint32Array {
    return this.#levelAt(level).words;
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

  /** The leaf of a page, or -1. */
  leafOf(page: number): number {
    let low = 0;
    let high = this.leafCount - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const found = this.#pages[middle] ?? 0;
      if (found === page) return middle;
      if (found < page) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }
}
