import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { crc32cByTables } from '../vmm/core/falcon/crc32c.ts';
import { ascending, bitmapOf } from '../test/framework/plain-pages.ts';
import { CommonPages } from './common-pages.ts';
import { CommonState } from './common-state.ts';
import type { PageHasher } from './page-hasher.ts';
import { PAGE_BYTES, PAGE_WORDS, PageSpace } from './page-space.ts';
import { shippedAs, STAGING_HEADER_BYTES, stagingBytesMax } from './staging-format.ts';
import { StagingReader } from './staging-reader.ts';
import { StagingWriter } from './staging-writer.ts';
import { MerkleTree } from './tree.ts';

const refusal = (code: string): Error => expect.objectContaining({ code }) as Error;
const sha256 = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest();

/** Two blocks with a gap: pages 0 to 15 and 64 to 71. */
const pageNumbers = [...Array(16).keys(), ...Array.from({ length: 8 }, (_, page) => 64 + page)];
const SIZE = 128;
const numbers = { term: 3, round: 70_000_000_000, attempt: 2 };
const STATE_MAX = 4096;

/** One replica's memory, device state, and what it has in common with the other. */
class Side {
  readonly words = new Uint32Array(24 * PAGE_WORDS);
  readonly space = new PageSpace(
    [
      { firstPage: 0, pageCount: 16, words: this.words.subarray(0, 16 * PAGE_WORDS) },
      { firstPage: 64, pageCount: 8, words: this.words.subarray(16 * PAGE_WORDS) },
    ],
    4,
  );
  readonly common: CommonPages;
  readonly commonState = new CommonState(sha256);
  readonly tree: MerkleTree;
  readonly writer: StagingWriter;
  readonly reader: StagingReader;
  state = new Uint8Array(0);

  constructor(cachePages: number) {
    this.common = new CommonPages(cachePages * PAGE_BYTES, this.space.pageLimit);
    this.tree = new MerkleTree(this.#hasher());
    const { space, common, commonState } = this;
    const parts = { space, common, commonState, checksum: crc32cByTables };
    this.writer = new StagingWriter(parts);
    this.reader = new StagingReader(parts);
  }

  #hasher(): PageHasher {
    const piece = (input: Uint8Array, bytes: number, at: number, out: Uint8Array): void =>
      out.set(sha256(input.subarray(at * bytes, (at + 1) * bytes)), 32 * at);
    return {
      hashPages: (pages, count, out) => {
        for (let at = 0; at < count; at++) out.set(sha256(this.bytesOf(pages[at] ?? 0)), 32 * at);
      },
      hashParents: (input, bytes, count, out) => {
        for (let at = 0; at < count; at++) piece(input, bytes, at, out);
      },
      hashParentsAt: (input, bytes, which, count, out) => {
        for (let at = 0; at < count; at++) piece(input, bytes, which[at] ?? 0, out);
      },
    };
  }

  pageOf(page: number): Uint32Array {
    const { firstPage, words } = this.space.regionOf(page);
    return words.subarray((page - firstPage) * PAGE_WORDS, (page - firstPage + 1) * PAGE_WORDS);
  }

  bytesOf(page: number): Uint8Array {
    const words = this.pageOf(page);
    return new Uint8Array(words.buffer, words.byteOffset, PAGE_BYTES);
  }

  /** After a round that was applied. */
  keep(pages: Uint32Array): void {
    this.tree.build(bitmapOf(pages, SIZE));
    this.common.keep(this.space, this.tree, pages, pages.length);
    this.commonState.keep(this.state);
  }
}

const area = (): Uint8Array<ArrayBuffer> => new Uint8Array(stagingBytesMax(24, STATE_MAX));

/** Leader and backup, and what goes between them. */
class Pair {
  readonly leader: Side;
  readonly backup: Side;
  readonly area = area();

  constructor(cachePages: number) {
    this.leader = new Side(cachePages);
    this.backup = new Side(cachePages);
  }

  write(pages: readonly number[]): number {
    return this.leader.writer.write(
      this.area,
      numbers,
      Uint32Array.from(pages),
      pages.length,
      this.leader.state,
    );
  }

  check(pages: readonly number[], from: Uint8Array = this.area): boolean {
    return this.backup.reader.check(from, numbers, Uint32Array.from(pages), pages.length, STATE_MAX);
  }

  apply(): void {
    const state = new Uint8Array(STATE_MAX);
    const length = this.backup.reader.apply(state);
    this.backup.state = state.slice(0, length);
  }

  /** One round; bases that the backup lacks are asked for. */
  ship(pages: readonly number[]): number {
    let bytes = this.write(pages);
    if (!this.check(pages)) {
      const { wantedPages, wantedCount, wantsState } = this.backup.reader;
      for (const page of wantedPages.subarray(0, wantedCount)) this.leader.common.forget(page);
      if (wantsState) this.leader.commonState.clear();
      bytes += this.write(pages);
      expect(this.check(pages)).toBe(true);
    }
    this.apply();
    return bytes;
  }

  keep(pages: readonly number[]): void {
    for (const side of [this.leader, this.backup]) side.keep(Uint32Array.from(pages));
  }

  expectEqual(pages: readonly number[]): void {
    for (const page of pages) {
      expect(Buffer.compare(this.leader.bytesOf(page), this.backup.bytesOf(page))).toBe(0);
    }
    expect(this.backup.state).toEqual(this.leader.state);
  }
}

/** What a guest may do to a page. */
const writes = fc.oneof(
  fc.constant((page: Uint32Array) => void page.fill(0)),
  fc.nat(0xffff_ffff).map((word) => (page: Uint32Array) => void page.fill(word)),
  fc.tuple(fc.nat(0xffff_ffff), fc.nat(0xffff_ffff)).map((pair) => (page: Uint32Array) => {
    page.forEach((_, at) => (page[at] = pair[at & 1] ?? 0));
  }),
  fc
    .array(fc.tuple(fc.nat(PAGE_WORDS - 1), fc.nat(0xffff_ffff)), { minLength: 1, maxLength: 60 })
    .map((changes) => (page: Uint32Array) => {
      for (const [at, word] of changes) page[at] = word;
    }),
  fc.nat(0xffff_ffff).map((seed) => (page: Uint32Array) => {
    page.forEach((_, at) => (page[at] = Math.imul(at + seed, 2_654_435_761)));
  }),
);

type Write = (page: Uint32Array) => void;

function nextOf(stream: Iterator<Write, Write>): Write {
  return stream.next().value;
}

const roundsOf = fc.array(
  fc.record({
    pages: fc
      .uniqueArray(fc.constantFrom(...pageNumbers), { maxLength: 12 })
      .map((pages) => pages.sort(ascending)),
    leader: fc.infiniteStream(writes),
    backup: fc.infiniteStream(writes),
    state: fc.uint8Array({ maxLength: 200 }),
    /** The backup was restarted and has nothing in common any more. */
    restarts: fc.integer({ min: 0, max: 5 }).map((die) => die === 0),
    /** The leader learns that it was applied. */
    applied: fc.integer({ min: 0, max: 5 }).map((die) => die > 0),
  }),
  { maxLength: 8 },
);

describe('shipping', () => {
  it('makes the pages and the device state equal, round after round, whatever happened in between', () => {
    fc.assert(
      fc.property(roundsOf, fc.nat(24), (rounds, cachePages) => {
        const pair = new Pair(cachePages);
        for (const { pages, leader, backup, state, restarts, applied } of rounds) {
          for (const page of pages) {
            nextOf(leader)(pair.leader.pageOf(page));
            nextOf(backup)(pair.backup.pageOf(page));
          }
          pair.leader.state = Uint8Array.from(state);
          if (restarts) {
            pair.backup.common.clear();
            pair.backup.commonState.clear();
          }
          pair.ship(pages);
          pair.expectEqual(pages);
          // Replayed at once: nothing changes.
          pair.apply();
          pair.expectEqual(pages);
          if (applied) pair.keep(pages);
          else pair.backup.keep(Uint32Array.from(pages));
        }
      }),
      { numRuns: 150 },
    );
  });

  it('of a replayed staging after later rounds writes nothing, or the same again', () => {
    const pair = new Pair(24);
    pair.leader.pageOf(3).forEach((_, at, page) => (page[at] = Math.imul(at, 2_654_435_761)));
    pair.ship([3]);
    pair.keep([3]);
    pair.leader.pageOf(3)[7] = 1;
    pair.ship([3]);
    const old = pair.area.slice();
    pair.keep([3]);
    pair.leader.pageOf(3)[8] = 1;
    pair.ship([3]);
    pair.keep([3]);
    expect(pair.check([3], old)).toBe(false);
    expect(() => pair.apply()).toThrow(RangeError);
    pair.expectEqual([3]);
  });
});

describe('the form of a page', () => {
  let pair: Pair;
  beforeEach(() => {
    pair = new Pair(24);
  });
  const random = (page: Uint32Array): void =>
    page.forEach((_, at) => (page[at] = Math.imul(at + 1, 2_654_435_761)));
  const kinds = (): number[] => [...pair.leader.writer.pagesAs];

  it('is the shortest: zeros and repetitions nearly nothing, sparse pages what they hold', () => {
    pair.leader.pageOf(1).fill(0xabcd);
    pair.leader.pageOf(2)[500] = 77;
    random(pair.leader.pageOf(3));
    const bytes = pair.write([0, 1, 2, 3]);
    expect(kinds()).toEqual([0, 1, 1, 1, 0, 1]);
    expect(bytes).toBe(STAGING_HEADER_BYTES + 8 + 16 + 12 + 8 + 4096);
    expect(bytes).toBe(STAGING_HEADER_BYTES + pair.leader.writer.bytesAs.reduce((sum, each) => sum + each));
  });

  it('is a delta from the last common version where the page was shipped before', () => {
    random(pair.leader.pageOf(3));
    pair.ship([3]);
    pair.keep([3]);
    for (let change = 0; change < 30; change++) pair.leader.pageOf(3)[change * 34] = change;
    random(pair.backup.pageOf(3).fill(9));
    // Of each change skip, length and four bytes; a skip of 132 takes two.
    const delta = 16 + (1 + 1 + 4) + 29 * (2 + 1 + 4);
    expect(pair.ship([3])).toBe(STAGING_HEADER_BYTES + 8 + delta + 3);
    expect(kinds()[shippedAs.delta]).toBe(1);
    pair.expectEqual([3]);
  });

  it('is the whole page where all of it changed', () => {
    random(pair.leader.pageOf(3));
    pair.ship([3]);
    pair.keep([3]);
    pair.leader.pageOf(3).forEach((word, at, page) => (page[at] = ~word));
    pair.ship([3]);
    expect(kinds()[shippedAs.whole]).toBe(1);
    pair.expectEqual([3]);
  });

  it('is the whole page after the backup asked for it, and only of the page it asked for', () => {
    for (const page of [3, 4]) random(pair.leader.pageOf(page));
    pair.ship([3, 4]);
    pair.keep([3, 4]);
    for (const page of [3, 4]) pair.leader.pageOf(page)[9] = 1;
    pair.backup.common.forget(4);
    pair.write([3, 4]);
    expect(pair.check([3, 4])).toBe(false);
    expect([...pair.backup.reader.wantedPages.subarray(0, pair.backup.reader.wantedCount)]).toEqual([4]);
    pair.ship([3, 4]);
    expect([kinds()[shippedAs.delta], kinds()[shippedAs.whole]]).toEqual([1, 1]);
    pair.expectEqual([3, 4]);
  });

  it('of a device state is a delta too, also when its length changes', () => {
    const state = Uint8Array.from({ length: 3001 }, (_, at) => at * 7);
    for (const length of [3001, 3001, 2999, 3003, 0, 5, 3000]) {
      pair.leader.state = state.slice(0, length);
      if (length > 100) pair.leader.state[100] = length;
      pair.ship([]);
      pair.expectEqual([]);
      pair.keep([]);
    }
    pair.leader.state = pair.leader.state.slice();
    for (let at = 0; at < 124; at++) pair.leader.state[at * 20] = 1;
    pair.ship([]);
    expect(pair.leader.writer.stateBytes).toBeLessThan(124 * 3 + 20);
    pair.expectEqual([]);
  });
});

describe('a staging', () => {
  let pair: Pair;
  let bytes: number;
  const pages = [0, 3, 64];
  beforeEach(() => {
    pair = new Pair(24);
    pair.leader.pageOf(0)[5] = 1;
    pair.leader.pageOf(3).forEach((_, at, page) => (page[at] = Math.imul(at + 1, 2_654_435_761)));
    pair.leader.state = Uint8Array.of(1, 2, 3, 4, 5);
    bytes = pair.write(pages);
  });

  /** The same with one 32-bit number replaced, and a checksum that holds. */
  function forged(at: number, value: number): Uint8Array {
    const copy = pair.area.slice();
    const view = new DataView(copy.buffer);
    view.setUint32(at, value, true);
    view.setUint32(4, crc32cByTables(copy, 8, bytes - 8, 0), true);
    return copy;
  }

  it('is refused after any damage', () => {
    for (let at = 0; at < bytes; at += at < 200 ? 1 : 61) {
      const copy = pair.area.slice();
      copy[at] = (copy[at] ?? 0) ^ 0x10;
      expect(() => pair.check(pages, copy)).toThrow(/staging/);
    }
    expect(pair.check(pages)).toBe(true);
  });

  it('of another term, round or attempt is refused', () => {
    for (const [at, value] of [
      [16, 4],
      [24, 1],
      [32, 1],
    ] as const) {
      // prettier-ignore
      expect(() => pair.check(pages, forged(at, value))).toThrow(refusal('GAIA_MERKLE_STAGING_STALE'));
    }
  });

  it('with other pages than were asked for is refused', () => {
    for (const asked of [[0, 3], [0, 3, 64, 65], [0, 3, 65], []]) {
      expect(() => pair.check(asked)).toThrow(refusal('GAIA_MERKLE_NOT_ASKED'));
    }
    const beyond = forged(STAGING_HEADER_BYTES, 40);
    expect(() => pair.check([40, 3, 64], beyond)).toThrow(refusal('GAIA_MERKLE_NO_SUCH_PAGE'));
  });

  it('does not fit an area that is too small, which then holds none', () => {
    for (let room = 0; room < bytes; room += room < 120 ? 1 : 97) {
      const small = new Uint8Array(room).fill(0x61);
      const asked = Uint32Array.from(pages);
      expect(() => pair.leader.writer.write(small, numbers, asked, 3, pair.leader.state)).toThrow(
        refusal('GAIA_MERKLE_STAGING_SIZE'),
      );
      expect(() => pair.check(pages, small)).toThrow(/staging/);
    }
    const exact = new Uint8Array(bytes);
    expect(pair.leader.writer.write(exact, numbers, Uint32Array.from(pages), 3, pair.leader.state)).toBe(
      bytes,
    );
  });

  it('longer than its area, or with too much device state, is refused', () => {
    expect(() => pair.check(pages, pair.area.subarray(0, bytes - 4))).toThrow(
      refusal('GAIA_MERKLE_STAGING_SIZE'),
    );
    expect(() => pair.backup.reader.check(pair.area, numbers, Uint32Array.from(pages), 3, 4)).toThrow(
      refusal('GAIA_MERKLE_STAGING_SIZE'),
    );
  });

  it('whose words were forged is refused or harmless, and a refused one changes nothing', () => {
    const elsewhere = pageNumbers.filter((page) => !pages.includes(page));
    fc.assert(
      fc.property(fc.nat(bytes / 4 - 1), fc.nat(0xffff_ffff), fc.nat(31), (word, value, shift) => {
        const backup = new Side(24);
        backup.words.fill(0x5a5a_5a5a);
        const untouched = (page: number): boolean =>
          backup.pageOf(page).every((each) => each === 0x5a5a_5a5a);
        try {
          const staging = forged(4 * word, value >>> shift);
          if (backup.reader.check(staging, numbers, Uint32Array.from(pages), 3, STATE_MAX)) {
            backup.reader.apply(new Uint8Array(STATE_MAX));
            expect(elsewhere.every(untouched)).toBe(true);
            return;
          }
        } catch (error) {
          expect(error).toMatchObject({ name: 'MerkleRefusal' });
        }
        expect(() => backup.reader.apply(new Uint8Array(STATE_MAX))).toThrow(RangeError);
        expect(pageNumbers.every(untouched)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  it('is applied as it was checked, whatever becomes of the area', () => {
    expect(pair.check(pages)).toBe(true);
    pair.area.fill(0x77);
    pair.apply();
    pair.expectEqual(pages);
  });

  it('touches no page that was not asked for', () => {
    pair.backup.words.fill(0x5a5a_5a5a);
    pair.check(pages);
    pair.apply();
    for (const page of pageNumbers.filter((each) => !pages.includes(each))) {
      expect(pair.backup.pageOf(page).every((word) => word === 0x5a5a_5a5a)).toBe(true);
    }
  });
});
