/**
 * Algorithm 1 of the proposal as one exchange for each level: finds the pages in which two replicas differ.
 *
 *   leader                                   backup
 *     | root                                   |
 *     |--------------------------------------->|  equal: done, nothing differs
 *     | hashes of the frontier, level by level |
 *     |--------------------------------------->|
 *     |       bitset: which of them differ     |
 *     |<---------------------------------------|
 *
 * Both sides hold the same frontier (nodes of one level that may differ) and advance it by the same answer:
 * the children of what differs. It begins at the level below the top; below the leaves it ends, and the
 * leaves that differ are the divergent pages.
 *
 * One object serves round after round; its buffers grow with the largest one.
 */
import { HASH_BYTES } from './page-hasher.ts';
import { MerkleRefusal } from './refusal.ts';
import { grown, type MerkleTree } from './tree.ts';

export class Traversal {
  #tree: MerkleTree | undefined;
  #level = 0;
  #frontier = new Uint32Array(0);
  #next = new Uint32Array(0);
  #frontierCount = 0;
  #finished = true;
  /** The first `divergentCount` are the page numbers that differ, ascending. */
  divergentPages = new Uint32Array(0);
  divergentCount = 0;

  /** Begins with trees whose roots differ. With equal roots there is nothing to begin. */
  begin(tree: MerkleTree): void {
    this.#tree = tree;
    this.divergentCount = 0;
    this.#level = Math.max(0, tree.levelCount - 2);
    this.#frontierCount = tree.nodeCount(this.#level);
    this.#finished = this.#frontierCount === 0;
    this.#frontier = withRoom(this.#frontier, this.#frontierCount);
    for (let node = 0; node < this.#frontierCount; node++) this.#frontier[node] = node;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** Bytes of the next message with hashes. */
  get hashBytes(): number {
    return this.#frontierCount * HASH_BYTES;
  }

  /** Bytes of the next answer. */
  get answerBytes(): number {
    return Math.ceil(this.#frontierCount / 8);
  }

  /** Leader: writes the hashes of the frontier, `hashBytes` of them. */
  writeHashes(out: Uint8Array): void {
    const hashes = this.#current().levelHashes(this.#level);
    let at = 0;
    for (let position = 0; position < this.#frontierCount; position++) {
      let from = (this.#frontier[position] ?? 0) * HASH_BYTES;
      for (const end = from + HASH_BYTES; from < end; from++) out[at++] = hashes[from] ?? 0;
    }
  }

  /** Backup: writes which hashes of the frontier differ from its own, a bit each. Returns how many. */
  compare(theirs: Uint8Array, answer: Uint8Array): number {
    const hashes = this.#current().levelHashes(this.#level);
    this.#checkLength('hashes', theirs.length, this.hashBytes);
    this.#checkLength('an answer', answer.length, this.answerBytes);
    answer.fill(0);
    let differing = 0;
    for (let position = 0; position < this.#frontierCount; position++) {
      if (sameHash(hashes, (this.#frontier[position] ?? 0) * HASH_BYTES, theirs, position * HASH_BYTES))
        continue;
      answer[position >>> 3] = (answer[position >>> 3] ?? 0) | (1 << (position & 7));
      differing++;
    }
    return differing;
  }

  /** Both: the frontier becomes the children of what differs, or the result when it was the leaves. */
  advance(answer: Uint8Array): void {
    const tree = this.#current();
    this.#checkAnswer(answer);
    if (this.#level === 0) {
      this.#collect(tree, answer);
      return;
    }
    const below = tree.nodeCount(this.#level - 1);
    let count = 0;
    for (let position = 0; position < this.#frontierCount; position++) {
      if (!differs(answer, position)) continue;
      const first = (this.#frontier[position] ?? 0) * tree.fanOut;
      const end = Math.min(first + tree.fanOut, below);
      this.#next = withRoom(this.#next, count + tree.fanOut);
      for (let child = first; child < end; child++) this.#next[count++] = child;
    }
    [this.#frontier, this.#next] = [this.#next, this.#frontier];
    this.#frontierCount = count;
    this.#level--;
  }

  #collect(tree: MerkleTree, answer: Uint8Array): void {
    this.divergentPages = withRoom(this.divergentPages, this.#frontierCount);
    for (let position = 0; position < this.#frontierCount; position++) {
      if (!differs(answer, position)) continue;
      this.divergentPages[this.divergentCount++] = tree.pageOf(this.#frontier[position] ?? 0);
    }
    this.#finished = true;
  }

  #checkAnswer(answer: Uint8Array): void {
    this.#checkLength('an answer', answer.length, this.answerBytes);
    let any = 0;
    for (const bits of answer) any |= bits;
    const used = this.#frontierCount & 7;
    const beyond = used === 0 ? 0 : (answer[answer.length - 1] ?? 0) >>> used;
    if (beyond !== 0) {
      throw new MerkleRefusal('GAIA_MERKLE_NOT_ASKED', 'The answer names nodes that were not asked for');
    }
    if (any === 0) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_NO_DIFFERENCE',
        `No node of level ${this.#level} differs although the roots do: the trees are not of one shape`,
      );
    }
  }

  #checkLength(what: string, bytes: number, expected: number): void {
    if (bytes === expected) return;
    throw new MerkleRefusal(
      'GAIA_MERKLE_LENGTH',
      `Expected ${what} of ${expected} bytes at level ${this.#level}, got ${bytes} bytes`,
    );
  }

  #current(): MerkleTree {
    if (this.#tree === undefined || this.#finished) throw new RangeError('No traversal is under way');
    return this.#tree;
  }
}

/** Whether two roots are equal. */
export function sameRoot(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === HASH_BYTES && other.length === HASH_BYTES && sameHash(one, 0, other, 0);
}

function sameHash(one: Uint8Array, oneAt: number, other: Uint8Array, otherAt: number): boolean {
  for (let position = 0; position < HASH_BYTES; position++) {
    if (one[oneAt + position] !== other[otherAt + position]) return false;
  }
  return true;
}

function differs(answer: Uint8Array, position: number): boolean {
  return (((answer[position >>> 3] ?? 0) >>> (position & 7)) & 1) === 1;
}

function withRoom(array: Uint32Array<ArrayBuffer>, count: number): Uint32Array<ArrayBuffer> {
  if (array.length >= count) return array;
  const larger = new Uint32Array(grown(array.length, count));
  larger.set(array);
  return larger;
}
