/**
 * Dirty pages of a tiny guest that writes just what it is told to, under the real KVM where there is one, and under
 * TCG by the same test everywhere.
 */
import { closeSync, openSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { bitmapWords, countBits, hasBit, setBit } from '../../../merkle/bitmap.ts';
import { native } from '../../../native/binding.ts';
import { readUint64 } from '../../../vmm/core/falcon/record.ts';
import { areaOffset, messageType, status } from '../../../vmm/io/qemu/layout.ts';
import { MemoryCopy } from '../../framework/guest-memory.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { exchange, portMessage } from '../../framework/port-message.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import {
  giveOrder,
  lastOrder,
  orderIsDone,
  orderPage,
  writingFirmware,
} from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const rounds = 100;
/** Real-mode memory that nothing else uses: from behind the order page to the video memory. */
const firstPage = 0x10;
const lastPage = 0x9e;
const roundNs = 200_000;

function whyNoKvm(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    return `/dev/kvm does not open: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`;
  }
}

/** The beginning of `add es:[…], ax` in the writer, and of `sub es:[…], ax`. */
const writersAddition = Uint8Array.of(0x26, 0x01, 0x06);
const subtraction = Uint8Array.of(0x26, 0x29, 0x06);

const whyNoNamespace = NetworkNamespace.whyImpossible();

describe.each([
  { accelerator: 'kvm', whyImpossible: whyNoNamespace ?? whyNoKvm() },
  { accelerator: 'tcg', whyImpossible: whyNoNamespace },
] as const)('under $accelerator', ({ accelerator, whyImpossible }) => {
  describeInLab(
    'a guest that writes to order',
    (lab) => {
      let guest: PortGuest;
      let ram: { readonly memory: ArrayBuffer; readonly bitmapBit: number };
      /** What the guest's pages must hold, one word each. */
      const words = new Map<number, number>();

      beforeAll(() => {
        const args = lab.firmwareArguments('writer', writingFirmware(), { accelerator, lockstep: false });
        // A KVM without hardware virtualization refuses to set some of the host's registers; 16-bit code needs none.
        guest = lab.start(
          'writer',
          args.map((arg, at) => (args[at - 1] === '-cpu' ? 'qemu64' : arg)),
        );
        const block = guest.port.blocks.find(({ name }) => name === 'ram0');
        if (block === undefined) throw new Error('The guest has no ram0');
        ram = block;
      });

      /** Lets the guest add `word` to each of `pages`, in as many rounds as it takes. */
      function write(word: number, pages: readonly number[]): void {
        giveOrder(ram.memory, word, pages);
        for (let round = 0; !orderIsDone(ram.memory); round++) {
          guest.runFor(roundNs);
          expect(round, guest.errors).toBeLessThan(1000);
        }
        for (const page of pages) words.set(page, ((words.get(page) ?? 0) + word) & 0xffff);
      }

      function collected(): number[] {
        const count = guest.port.collect();
        const pages: number[] = [];
        const { dirtyBitmap } = guest.port;
        for (let page = 0; page < dirtyBitmap.length * 32; page++)
          if (hasBit(dirtyBitmap, page)) pages.push(page);
        expect(pages.length).toBe(count);
        return pages.map((page) => page - ram.bitmapBit);
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
        expect(collected()).toEqual([orderPage, 0x20, 0x21, 0x5f, lastPage]);
        expect(collected()).toEqual([]);
        guest.runFor(roundNs);
        expect(collected()).toEqual([]);
      });

      it(`over ${rounds} rounds of random pages no page is missing and none is there for nothing`, () => {
        const copy = new MemoryCopy(guest.port);
        let state = 20_261_120;
        const random = (below: number): number => {
          state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
          return Math.floor((state / 2 ** 32) * below);
        };
        for (let round = 0; round < rounds; round++) {
          const pages = Array.from(
            { length: 1 + random(60) },
            () => firstPage + random(lastPage - firstPage + 1),
          );
          write(1 + random(0x7fff), pages);
          const wanted = new Uint32Array(bitmapWords(lastPage + 1));
          for (const page of [orderPage, ...pages]) setBit(wanted, page);
          const found = collected();
          expect(copy.missing(copy.renew(), guest.port.dirtyBitmap), `round ${round}`).toEqual([]);
          expect(
            found.filter((page) => !hasBit(wanted, page)),
            `round ${round}`,
          ).toEqual([]);
          expect(found.length, `round ${round}`).toBe(countBits(wanted));
        }
        for (const [page, word] of words) {
          expect(new DataView(ram.memory, page * 4096).getUint16(0, true), `page ${page}`).toBe(word);
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
        const bios = guest.port.blocks.find(({ name }) => name === 'pc.bios');
        if (bios === undefined) throw new Error('A pc has firmware');
        const code = Buffer.from(bios.memory);
        const at = code.indexOf(writersAddition);
        expect(at).toBeGreaterThan(0);
        code.set(subtraction, at);
        const bit = bios.bitmapBit + Math.floor(at / 4096);
        const area = new DataView(guest.area);
        const apply = new Uint32Array(
          guest.area,
          readUint64(area, areaOffset.applyOffset),
          guest.port.dirtyBitmap.length,
        );
        setBit(apply, bit);
        const answer = exchange(guest.port.socketFd, portMessage(messageType.invalidate));
        expect([answer.status, answer.arguments[0]]).toEqual([status.ok, 1]);
        const before = words.get(page) ?? 0;
        write(5, [page]);
        expect(new DataView(ram.memory, page * 4096).getUint16(0, true)).toBe((before - 5) & 0xffff);
      });

      it('a guest that has halted dirties nothing any more', () => {
        write(lastOrder, []);
        guest.runFor(roundNs);
        guest.port.collect();
        for (let round = 0; round < 10; round++) guest.runFor(roundNs);
        expect(collected()).toEqual([]);
      });
    },
    whyImpossible,
  );
});
