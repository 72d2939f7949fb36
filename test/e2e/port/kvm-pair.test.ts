/**
 * Two guests that do different things and are made equal again, 500 times: under the real KVM, where there is one, and
 * under TCG by the same test everywhere.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { differingPages } from '../../framework/guest-memory.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { orderPage } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { VsmrPair } from '../../framework/vsmr-pair.ts';
import { PageDice, whyNoKvm, WriterGuest } from '../../framework/writer-guest.ts';

const rounds = 500;
const roundNs = 300_000;
const pagesMax = 40;
const whyNoNamespace = NetworkNamespace.whyImpossible();

describe.each([
  { accelerator: 'kvm', whyImpossible: whyNoNamespace ?? whyNoKvm() },
  { accelerator: 'tcg', whyImpossible: whyNoNamespace },
] as const)('under $accelerator', ({ accelerator, whyImpossible }) => {
  describeInLab(
    'two guests that write different pages',
    (lab) => {
      let leader: WriterGuest;
      let backup: WriterGuest;
      let pair: VsmrPair;

      beforeAll(() => {
        [leader, backup] = [
          WriterGuest.start(lab, 'leader', accelerator),
          WriterGuest.start(lab, 'backup', accelerator),
        ];
        leader.write(1, [0x20]);
        pair = VsmrPair.clone(leader.guest, backup.guest);
      });

      it(`are equal in every byte of every block after each of ${rounds} rounds`, () => {
        const dice = new PageDice();
        const sums = { union: 0, divergent: 0, unequalRounds: 0 };
        /** What the leader's pages must hold, one word each. */
        const words = new Map([[0x20, 1]]);
        for (let number = 1; number <= rounds; number++) {
          const pages = dice.pages(pagesMax);
          const word = 1 + dice.below(0x7fff);
          leader.order(word, pages);
          backup.order(1 + dice.below(0x7fff), dice.pages(pagesMax));
          for (const page of pages) words.set(page, ((words.get(page) ?? 0) + word) & 0xffff);
          pair.wrote(leader.ram.bitmapBit + orderPage);
          // Sometimes a round ends in the midst of an order; then both have the leader's rest before them.
          do {
            const { union, divergent } = pair.round(roundNs, []);
            expect(differingPages(leader.guest.port, backup.guest.port), `round ${number}`).toEqual([]);
            sums.union += union;
            sums.divergent += divergent;
            if (divergent > 0) sums.unequalRounds++;
          } while (!leader.isDone);
        }
        for (const [page, word] of words) {
          expect(leader.wordOf(page), `page ${page}`).toBe(word);
          expect(backup.wordOf(page), `page ${page}`).toBe(word);
        }
        expect(sums.unequalRounds).toBeGreaterThanOrEqual(rounds);
        expect(sums.union).toBeGreaterThan(sums.divergent);
      });
    },
    whyImpossible,
  );
});
