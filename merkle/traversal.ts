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
 * the children of what differs. It begins with all nodes of one level, agreed on by both; below the leaves it
 * ends, and the leaves that differ are the divergent pages. Begun at the level below the top it is the log(N)
 * traversal, begun at the leaves it is the flat exchange: `ExchangeChoice` knows what is cheaper.
 *
 * Messages carry the first 16 of a hash's 32 bytes. Two that are equal by chance or by art leave a divergent page
 * unfound; the roots, compared whole after the pages are applied, then differ, so it never goes unnoticed.
 *
 * One object serves round after round; its buffers grow with the largest one.
 */
import { withRoom } from './grow.ts';
import { HASH_WORDS } from './hash-list.ts';
import { HASH_BYTES } from './page-hasher.ts';
import { MerkleRefusal } from './refusal.ts';
import type { MerkleTree } from './tree.ts';

/** Of each hash, in the messages between both sides. */
export const EXCHANGE_HASH_BYTES = 16;
const EXCHANGE_HASH_WORDS = EXCHANGE_HASH_BYTES / 4;

export class Traversal {
  #tree: MerkleTree | undefined;
  #level = 0;
  #frontier = new Uint32Array(0);
  #next = new Uint32Array(0);
  #frontierCount = 0;
  #finished = true;
  /** The first `divergentCount` are the page numbers that differ, ascending, and the leaves they are. */
  divergentPages = new Uint32Array(0);
  divergentLeaves = new Uint32Array(0);
  divergentCount = 0;

  /**
   * Begins with trees whose roots differ; with equal roots there is nothing to begin. Both sides name the same
   * `level`, by default the one below the top. Refuses a level that the tree lacks.
   */
  begin(tree: MerkleTree, level = topLevelOf(tree)): void {
    if (!Number.isInteger(level) || level < 0 || level > topLevelOf(tree)) {
      throw new MerkleRefusal(
        'GAIA_MERKLE_LEVEL',
        `An exchange cannot begin at level ${level}: the tree offers 0 to ${topLevelOf(tree)}`,
      );
    }
    this.#tree = tree;
    this.divergentCount = 0;
    this.#level = level;
    this.#frontierCount = tree.nodeCount(level);
    this.#finished = this.#frontierCount === 0;
    this.#frontier = withRoom(this.#frontier, this.#frontierCount);
    for (let node = 0; node < this.#frontierCount; node++) this.#frontier[node] = node;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** Level of the frontier; 0 are the leaves. */
  get level(): number {
    return this.#level;
  }

  /** Bytes of the next message with hashes. */
  get hashBytes(): number {
    return this.#frontierCount * EXCHANGE_HASH_BYTES;
  }

  /** Bytes of the next answer. */
  get answerBytes(): number {
    return Math.ceil(this.#frontierCount / 8);
  }

  /** Leader: writes the hashes of the frontier, `hashBytes` of them. */
  writeHashes(out: Uint8Array): void {
    const words = this.#current().levelWords(this.#level);
    this.#checkLength('room for hashes', out.length, this.hashBytes);
    let at = 0;
    for (let position = 0; position < this.#frontierCount; position++) {
      let from = (this.#frontier[position] ?? 0) * HASH_WORDS;
      for (const end = from + EXCHANGE_HASH_WORDS; from < end; from++) {
        const word = words[from] ?? 0;
        out[at] = word;
        out[at + 1] = word >>> 8;
        out[at + 2] = word >>> 16;
        out[at + 3] = word >>> 24;
        at += 4;
      }
    }
  }

  /** Backup: writes which hashes of the frontier differ from its own, a bit each. Returns how many. */
  compare(theirs: Uint8Array, answer: Uint8Array): number {
    const words = this.#current().levelWords(this.#level);
    this.#checkLength('hashes', theirs.length, this.hashBytes);
    this.#checkLength('room for an answer', answer.length, this.answerBytes);
    answer.fill(0);
    let differing = 0;
    for (let position = 0; position < this.#frontierCount; position++) {
      if (sameHash(words, (this.#frontier[position] ?? 0) * HASH_WORDS, theirs, position)) continue;
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
    this.divergentLeaves = withRoom(this.divergentLeaves, this.#frontierCount);
    for (let position = 0; position < this.#frontierCount; position++) {
      if (!differs(answer, position)) continue;
      const leaf = this.#frontier[position] ?? 0;
      this.divergentLeaves[this.divergentCount] = leaf;
      this.divergentPages[this.divergentCount++] = tree.pageOf(leaf);
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

/** The highest level at which an exchange can begin: the one below the single top node. */
export function topLevelOf(tree: { readonly levelCount: number }): number {
  return Math.max(0, tree.levelCount - 2);
}

/** Whether two roots are equal. */
export function sameRoot(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== HASH_BYTES || other.length !== HASH_BYTES) return false;
  for (let at = 0; at < HASH_BYTES; at++) if (one[at] !== other[at]) return false;
  return true;
}

/**
 * After the pages of a round are applied: refuses a root other than the leader's. Then something was not found or
 * not applied, by a bug or by bad memory, and the backup is valid no more.
 */
export function requireSameRoot(ours: Uint8Array, theirs: Uint8Array): void {
  if (theirs.length !== HASH_BYTES) {
    throw new MerkleRefusal('GAIA_MERKLE_LENGTH', `A root has ${HASH_BYTES} bytes, not ${theirs.length}`);
  }
  if (sameRoot(ours, theirs)) return;
  throw new MerkleRefusal(
    'GAIA_MERKLE_ROOT',
    `The memories still differ after the divergent pages were applied (root ${startOf(ours)} here, ${startOf(theirs)} there): the backup has to be rebuilt`,
  );
}

function startOf(hash: Uint8Array): string {
  return Array.from(hash.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Whether the hash at word `at` begins with entry `position` of a message. */
function sameHash(words: Uint32Array, at: number, message: Uint8Array, position: number): boolean {
  let byte = position * EXCHANGE_HASH_BYTES;
  for (let word = at; word < at + EXCHANGE_HASH_WORDS; word++) {
    const theirs =
      (message[byte] ?? 0) |
      ((message[byte + 1] ?? 0) << 8) |
      ((message[byte + 2] ?? 0) << 16) |
      ((message[byte + 3] ?? 0) << 24);
    if (theirs !== ((words[word] ?? 0) | 0)) return false;
    byte += 4;
  }
  return true;
}

function differs(answer: Uint8Array, position: number): boolean {
  return (((answer[position >>> 3] ?? 0) >>> (position & 7)) & 1) === 1;
}
