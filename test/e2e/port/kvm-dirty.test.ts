/**
 * Dirty pages of a tiny guest that writes just what it is told to, under the real KVM where there is one, and under
 * TCG by the same test everywhere.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { bitmapWords, countBits, hasBit, setBit } from '../../../merkle/bitmap.ts';
import { native } from '../../../native/binding.ts';
import { MemoryCopy } from '../../framework/guest-memory.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { lastOrder } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import {
  changeWriter,
  PageDice,
  whyNoWriter,
  writerCode,
  WriterGuest,
  writerMachines,
  writerPages,
} from '../../framework/writer-guest.ts';

const { first: firstPage, last: lastPage } = writerPages;
const roundNs = 200_000;

describe.each(writerMachines)(
  'under $accelerator, a $machine with $vcpus vCPUs, dirty ring $dirtyRing',
  ({ thorough, ...machine }) => {
    const rounds = thorough ? 100 : 20;
    describeInLab(
      'a guest that writes to order',
      (lab) => {
        let writer: WriterGuest;
        let guest: PortGuest;
        /** What the guest's pages must hold, one word each. */
        const words = new Map<number, number>();

        beforeAll(() => {
          writer = WriterGuest.start(lab, 'writer', machine);
          guest = writer.guest;
        });

        function write(word: number, pages: readonly number[]): void {
          writer.write(word, pages);
          for (const page of pages) words.set(page, ((words.get(page) ?? 0) + word) & 0xffff);
        }

        function collected(): number[] {
          const count = guest.port.collect();
          const pages: number[] = [];
          const { dirtyBitmap } = guest.port;
          for (let page = 0; page < dirtyBitmap.length * 32; page++)
            if (hasBit(dirtyBitmap, page)) pages.push(page);
          expect(pages.length).toBe(count);
          return pages.map((page) => page - writer.ram.bitmapBit);
        }

        it('a fresh guest counts as dirty wherever it is not zero', () => {
          const copy = new MemoryCopy(guest.port);
          write(1, [firstPage]);
          guest.port.collect();
          expect(copy.missing(copy.renew(), guest.port.dirtyBitmap)).toEqual([]);
        });

        it('a round collects exactly the pages that the guest wrote, and clears them', () => {
          write(1, [firstPage, lastPage]);
          guest.port.collect();
          write(0x101, [0x20, 0x21, 0x5f, lastPage]);
          expect(collected()).toEqual([...writer.orderPages, 0x20, 0x21, 0x5f, lastPage]);
          expect(collected()).toEqual([]);
          guest.runFor(roundNs);
          expect(collected()).toEqual([]);
        });

        it(`over ${rounds} rounds of random pages no page is missing and none is there for nothing`, () => {
          const copy = new MemoryCopy(guest.port);
          const dice = new PageDice();
          for (let round = 0; round < rounds; round++) {
            const pages = dice.pages(60);
            write(1 + dice.below(0x7fff), pages);
            const wanted = new Uint32Array(bitmapWords(lastPage + 1));
            for (const page of [...writer.orderPages, ...pages]) setBit(wanted, page);
            const found = collected();
            expect(copy.missing(copy.renew(), guest.port.dirtyBitmap), `round ${round}`).toEqual([]);
            expect(
              found.filter((page) => !hasBit(wanted, page)),
              `round ${round}`,
            ).toEqual([]);
            expect(found.length, `round ${round}`).toBe(countBits(wanted));
          }
          for (const [page, word] of words) {
            expect(writer.wordOf(page), `page ${page}`).toBe(word);
          }
        });

        it('device state is saved and loaded any number of times, and the guest goes on', () => {
          for (let times = 0; times < 20; times++) {
            guest.port.pause();
            const { bytes, checksum } = guest.port.save();
            const state = guest.port.deviceState.subarray(0, bytes);
            expect(native().crc32c(state, 0)).toBe(checksum);
            guest.port.load(bytes, checksum);
            write(times, [firstPage + times]);
          }
        });

        it('code that the agent has written runs once the translations of its page are dropped', () => {
          const page = firstPage;
          write(5, [page]);
          setBit(guest.port.applyBitmap, changeWriter(guest, writerCode.adds, writerCode.subtracts));
          expect(guest.port.invalidate()).toBe(1);
          const before = words.get(page) ?? 0;
          write(5, [page]);
          expect(writer.wordOf(page)).toBe((before - 5) & 0xffff);
        });

        it('a guest that has halted dirties nothing any more', () => {
          write(lastOrder, []);
          guest.runFor(roundNs);
          guest.port.collect();
          for (let round = 0; round < 10; round++) guest.runFor(roundNs);
          expect(collected()).toEqual([]);
        });
      },
      whyNoWriter(machine.accelerator),
    );
  },
);
