/**
 * Two guests that do different things and are made equal again, up to 500 times: under the real KVM, where there is one,
 * and under TCG by the same test everywhere.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { differingPages } from '../../framework/guest-memory.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { VsmrPair } from '../../framework/vsmr-pair.ts';
import { PageDice, whyNoWriter, WriterGuest, writerMachines } from '../../framework/writer-guest.ts';

const roundNs = 300_000;
const pagesMax = 40;

describe.each(writerMachines)(
  'under $accelerator, a $machine with $vcpus vCPUs, dirty ring $dirtyRing',
  ({ thorough, ...machine }) => {
    const rounds = thorough ? 500 : 25;
    describeInLab(
      'two guests that write different pages',
      (lab) => {
        let leader: WriterGuest;
        let backup: WriterGuest;
        let pair: VsmrPair;

        beforeAll(() => {
          [leader, backup] = [
            WriterGuest.start(lab, 'leader', machine),
            WriterGuest.start(lab, 'backup', machine),
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
            for (const page of leader.orderPages) pair.wrote(leader.ram.bitmapBit + page);
            // Sometimes a round ends in the midst of an order; then both have the leader's rest before them. A busy
            // host may keep one vCPU waiting through many short rounds.
            for (let ns = roundNs; ns === roundNs || !leader.isDone; ns *= 2) {
              const { union, divergent } = pair.round(ns, []);
              expect(differingPages(leader.guest.port, backup.guest.port), `round ${number}`).toEqual([]);
              sums.union += union;
              sums.divergent += divergent;
              if (divergent > 0) sums.unequalRounds++;
            }
          }
          for (const [page, word] of words) {
            expect(leader.wordOf(page), `page ${page}`).toBe(word);
            expect(backup.wordOf(page), `page ${page}`).toBe(word);
          }
          expect(sums.unequalRounds).toBeGreaterThanOrEqual(rounds);
          // By chance, both dirty a page now and then and leave it equal.
          if (thorough) expect(sums.union).toBeGreaterThan(sums.divergent);
        });
      },
      whyNoWriter(machine.accelerator),
    );
  },
);
