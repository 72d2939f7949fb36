/** What a round's pages leave behind for the garbage collector, from the tree to the common version. */
import type { HeapProfiler } from 'node:inspector';
import { Session } from 'node:inspector/promises';
import { describe, expect, it } from 'vitest';
import { bitmapOf } from '../test/framework/plain-pages.ts';
import { CommonPages } from './common-pages.ts';
import { CommonState } from './common-state.ts';
import { ExchangeChoice } from './exchange-choice.ts';
import type { PageHasher } from './page-hasher.ts';
import { packBitmap, packedBytesMax, unpackBitmap } from './packed-bitmap.ts';
import { PAGE_BYTES, PAGE_WORDS, PageSpace } from './page-space.ts';
import { stagingBytesMax } from './staging-format.ts';
import { StagingReader } from './staging-reader.ts';
import { StagingWriter } from './staging-writer.ts';
import { sameRoot, topLevelOf, Traversal } from './traversal.ts';
import { MerkleTree } from './tree.ts';

const PAGES = 600;
const STATE = new Uint8Array(3000);

/** No hash to rely on, but one that allocates nothing. */
class QuickHasher implements PageHasher {
  readonly #bytes: Uint8Array;

  constructor(words: Uint32Array) {
    this.#bytes = new Uint8Array(words.buffer);
  }

  hashPages(pages: Uint32Array, count: number, out: Uint8Array): void {
    for (let at = 0; at < count; at++) mix(this.#bytes, (pages[at] ?? 0) * PAGE_BYTES, PAGE_BYTES, out, at);
  }

  hashParents(input: Uint8Array, pieceBytes: number, count: number, out: Uint8Array): void {
    for (let at = 0; at < count; at++) mix(input, at * pieceBytes, pieceBytes, out, at);
  }

  hashParentsAt(
    input: Uint8Array,
    pieceBytes: number,
    which: Uint32Array,
    count: number,
    out: Uint8Array,
  ): void {
    for (let at = 0; at < count; at++)
      mix(input, (which[at] ?? 0) * pieceBytes, pieceBytes, out, which[at] ?? 0);
  }
}

function mix(input: Uint8Array, from: number, bytes: number, out: Uint8Array, place: number): void {
  let state = 1;
  // Every fourth byte is enough for what this test writes.
  for (let at = from; at < from + bytes; at += 4) state = Math.imul(state ^ (input[at] ?? 0), 0x0100_0193);
  for (let at = 0; at < 32; at++) {
    state = Math.imul(state, 0x0100_0193) ^ (state >>> 15);
    out[32 * place + at] = state;
  }
}

function checksum(bytes: Uint8Array, offset: number, length: number, seed: number): number {
  let sum = seed | 0;
  for (let at = offset; at < offset + length; at++) sum = (Math.imul(sum, 31) + (bytes[at] ?? 0)) | 0;
  return sum;
}

class Side {
  readonly words = new Uint32Array(PAGES * PAGE_WORDS);
  readonly tree = new MerkleTree(new QuickHasher(this.words));
  readonly traversal = new Traversal();
  readonly parts = {
    space: new PageSpace([{ firstPage: 0, pageCount: PAGES, words: this.words }]),
    common: new CommonPages(400 * PAGE_BYTES, PAGES),
    commonState: new CommonState(() => new Uint8Array(32)),
    checksum,
  };
  readonly writer = new StagingWriter(this.parts);
  readonly reader = new StagingReader(this.parts);
}

class Rounds {
  readonly #leader = new Side();
  readonly #backup = new Side();
  readonly #all = bitmapOf(Array(PAGES).keys(), PAGES);
  readonly #packed = new Uint8Array(packedBytesMax(this.#all.length));
  readonly #union = new Uint32Array(this.#all.length);
  readonly #choice = new ExchangeChoice({ roundTripUs: 30, bytesPerUs: 1250 });
  readonly #area = new Uint8Array(stagingBytesMax(PAGES, STATE.length));
  readonly #messages = new Map<number, Uint8Array>();
  #round = 0;

  /** Buffers of the caller's, which production keeps, too. */
  #message(bytes: number): Uint8Array {
    let message = this.#messages.get(bytes);
    if (message === undefined) this.#messages.set(bytes, (message = new Uint8Array(bytes)));
    return message;
  }

  /** Pages change in all ways that are shipped differently; then both sides are made equal again. Returns how many. */
  run(): number {
    const [leader, backup] = [this.#leader, this.#backup];
    this.#round++;
    for (let page = 0; page < PAGES; page++) {
      const at = page * PAGE_WORDS;
      if (page % 5 === 0) leader.words.fill(page % 2 === 0 ? 0 : this.#round, at, at + PAGE_WORDS);
      else if (page % 5 === 1) leader.words[at + (this.#round % PAGE_WORDS)] = this.#round;
      else if (page % 5 === 2)
        for (let word = at; word < at + 1000; word++) leader.words[word] = word ^ this.#round;
      if (page % 3 === 0) backup.words[at + 9] = ~this.#round;
    }
    const packed = this.#message(packBitmap(this.#all, this.#packed));
    packed.set(this.#packed.subarray(0, packed.length));
    unpackBitmap(packed, this.#union);
    leader.tree.build(this.#union);
    backup.tree.update(this.#union, this.#union);
    if (sameRoot(leader.tree.root(), backup.tree.root())) throw new Error('Nothing differs');
    this.#choice.levelFor(leader.tree.leafCount);
    const level = this.#round % (topLevelOf(leader.tree) + 1);
    const [one, other] = [leader.traversal, backup.traversal];
    one.begin(leader.tree, level);
    other.begin(backup.tree, level);
    while (!one.finished) {
      const hashes = this.#message(one.hashBytes);
      const answer = this.#message(one.answerBytes);
      one.writeHashes(hashes);
      other.compare(hashes, answer);
      one.advance(answer);
      other.advance(answer);
    }
    this.#choice.observe(leader.tree.leafCount, one.divergentLeaves, one.divergentCount);
    this.#ship();
    return PAGES;
  }

  #ship(): void {
    const [leader, backup] = [this.#leader, this.#backup];
    const { divergentPages, divergentCount } = leader.traversal;
    const numbers = { term: 1, round: this.#round, attempt: 1 };
    leader.writer.write(this.#area, numbers, divergentPages, divergentCount, STATE);
    if (!backup.reader.check(this.#area, numbers, divergentPages, divergentCount, STATE.length))
      throw new Error('A base is missing');
    backup.reader.apply(STATE);
    backup.tree.update(this.#union, this.#union);
    if (!sameRoot(leader.tree.root(), backup.tree.root())) throw new Error('The roots differ');
    for (const { tree, parts } of [leader, backup]) {
      parts.common.keep(parts.space, tree, divergentPages, divergentCount);
      parts.commonState.keep(STATE);
    }
  }
}

describe('the path of a page', () => {
  it('leaves nothing for the garbage collector', async () => {
    const rounds = new Rounds();
    for (let count = 0; count < 60; count++) rounds.run();
    const session = new Session();
    session.connect();
    await session.post('HeapProfiler.startSampling', {
      samplingInterval: 1024,
      includeObjectsCollectedByMajorGC: true,
      includeObjectsCollectedByMinorGC: true,
    });
    let pages = 0;
    for (let count = 0; count < 50; count++) pages += rounds.run();
    const { profile } = await session.post('HeapProfiler.stopSampling');
    session.disconnect();
    // A view or a boxed number for each page would be 16 bytes at least; what a round allocates is shared by its pages.
    expect(allocatedIn('/merkle/', profile.head) / pages).toBeLessThan(8);
  });
});

function allocatedIn(folder: string, node: HeapProfiler.SamplingHeapProfileNode): number {
  const own =
    node.callFrame.url.includes(folder) && !node.callFrame.url.endsWith('.test.ts') ? node.selfSize : 0;
  return node.children.reduce((sum, child) => sum + allocatedIn(folder, child), own);
}
