import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ascending, bitmapOf, PlainHasher } from '../test/framework/plain-pages.ts';
import { CommonPages } from './common-pages.ts';
import { PAGE_BYTES, PAGE_WORDS, PageSpace } from './page-space.ts';
import { MerkleTree } from './tree.ts';

const PAGES = 12;

/** A machine whose pages hold one number each. */
class Machine {
  readonly contents = new Map<number, number>();
  readonly words = new Uint32Array(PAGES * PAGE_WORDS);
  readonly space = new PageSpace([{ firstPage: 0, pageCount: PAGES, words: this.words }]);
  readonly tree = new MerkleTree(new PlainHasher(this.contents));

  write(pages: readonly number[], value: number): void {
    for (const page of pages) {
      this.contents.set(page, value);
      this.words.fill(value, page * PAGE_WORDS, (page + 1) * PAGE_WORDS);
    }
    this.tree.build(bitmapOf(pages, PAGES));
  }
}

const rounds = fc.array(
  fc.uniqueArray(fc.nat(PAGES - 1), { minLength: 1, maxLength: 6 }).map((pages) => pages.sort(ascending)),
  { maxLength: 30 },
);

describe('the common pages', () => {
  it('are those shipped last, with their content and hash, whatever was forgotten in between', () => {
    fc.assert(
      fc.property(rounds, fc.nat(8), fc.infiniteStream(fc.nat(60)), (history, capacity, forgets) => {
        const machine = new Machine();
        const common = new CommonPages(capacity * PAGE_BYTES + 100, PAGES);
        // The oldest first.
        let model: { page: number; value: number; hash: string }[] = [];
        for (const [round, pages] of history.entries()) {
          machine.write(pages, round + 1);
          common.keep(machine.space, machine.tree, Uint32Array.from(pages), pages.length);
          const fresh = pages.map((page) => ({
            page,
            value: round + 1,
            hash: Buffer.from(machine.tree.hashes(0, machine.tree.leafOf(page))).toString('hex'),
          }));
          // As an endless list would do it, one page after the other.
          for (const entry of fresh) {
            model = [...model.filter(({ page }) => page !== entry.page), entry];
            if (capacity === 0) model = [];
            else if (model.length > capacity) model = model.slice(1);
          }
          const forgotten = Number(forgets.next().value);
          common.forget(forgotten);
          model = model.filter(({ page }) => page !== forgotten);
          for (let page = 0; page < PAGES; page++) {
            const slot = common.slotOf(page);
            const held = model.find((entry) => entry.page === page);
            expect(slot >= 0).toBe(held !== undefined);
            if (slot < 0) continue;
            expect(common.words[slot * PAGE_WORDS + 1023]).toBe(held?.value);
            const hash = Buffer.from(common.hashes.slice(8 * slot, 8 * slot + 8).buffer).toString('hex');
            expect(hash).toBe(held?.hash);
          }
          expect(common.count).toBe(model.length);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('take no more memory than they were given, nor than there are pages', () => {
    expect(new CommonPages(PAGE_BYTES * 2.9, PAGES).capacity).toBe(2);
    expect(new CommonPages(2 ** 30, PAGES).capacity).toBe(PAGES);
    expect(new CommonPages(0, PAGES).slotOf(3)).toBe(-1);
  });

  it('are gone after they were cleared', () => {
    const machine = new Machine();
    machine.write([1, 2], 5);
    const common = new CommonPages(2 ** 20, PAGES);
    common.keep(machine.space, machine.tree, Uint32Array.of(1, 2), 2);
    common.clear();
    expect([common.count, common.slotOf(1), common.slotOf(2)]).toEqual([0, -1, -1]);
  });
});
