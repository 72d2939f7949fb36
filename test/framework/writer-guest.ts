/** A guest of a few dozen instructions that writes just the pages it is told to, under KVM as well as under TCG. */
import { closeSync, openSync } from 'node:fs';
import { native } from '../../native/binding.ts';
import type { GuestBlock } from '../../vmm/io/qemu/port.ts';
import type { Machine } from '../../vmm/io/qemu/profile.ts';
import { NetworkNamespace } from './network-namespace.ts';
import type { PortGuest } from './port-guest.ts';
import type { PortLab } from './port-lab.ts';
import {
  giveOrder,
  orderIsDone,
  orderPage,
  secondOrderPage,
  writingFirmware,
  writingPairFirmware,
} from './port-machine.ts';
import { ramOf } from './port-processor.ts';

/** Real-mode memory that nothing else uses: from behind the order page to the video memory. */
export const writerPages = { first: 0x10, last: 0x9e } as const;

const roundNs = 200_000;
const roundsMax = 300;

/** Why no writer runs here under this accelerator; undefined when one does. */
export function whyNoWriter(accelerator: 'kvm' | 'tcg'): string | undefined {
  return NetworkNamespace.whyImpossible() ?? (accelerator === 'kvm' ? whyNoKvm() : undefined);
}

/** Undefined when this machine has a KVM that can be opened; tiny guests run under any. */
function whyNoKvm(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    return `/dev/kvm does not open: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`;
  }
}

interface WriterMachine {
  readonly accelerator: 'kvm' | 'tcg';
  readonly machine: Machine;
  /** With two, each writes every other page. */
  readonly vcpus: 1 | 2;
  /** KVM tells of dirty pages by a ring for each vCPU, not by a bitmap; where it has none, QEMU takes the bitmap. */
  readonly dirtyRing: boolean;
}

const dirtyRingEntries = 4096;

/**
 * What the tests of writers run on: of KVM, machine, vCPUs and dirty ring in every pair, and one of TCG for each kind of
 * firmware. `thorough` ones stand for the others in what takes long.
 */
export const writerMachines: readonly (WriterMachine & { readonly thorough: boolean })[] = [
  { accelerator: 'kvm', machine: 'pc', vcpus: 1, dirtyRing: false, thorough: true },
  { accelerator: 'kvm', machine: 'pc', vcpus: 2, dirtyRing: true, thorough: false },
  { accelerator: 'kvm', machine: 'microvm', vcpus: 1, dirtyRing: true, thorough: false },
  { accelerator: 'kvm', machine: 'microvm', vcpus: 2, dirtyRing: false, thorough: false },
  { accelerator: 'tcg', machine: 'pc', vcpus: 1, dirtyRing: false, thorough: true },
  { accelerator: 'tcg', machine: 'microvm', vcpus: 2, dirtyRing: false, thorough: false },
];

export class WriterGuest {
  readonly guest: PortGuest;
  readonly ram: GuestBlock;
  /** The pages that hold its orders, one for each vCPU: all are written when an order is done. */
  readonly orderPages: readonly number[];

  private constructor(guest: PortGuest, vcpus: 1 | 2) {
    this.guest = guest;
    const ram = guest.port.blocks.find(({ name }) => name === 'ram0');
    if (ram === undefined) throw new Error('The guest has no ram0');
    this.ram = ram;
    this.orderPages = [orderPage, secondOrderPage].slice(0, vcpus);
  }

  static start(lab: PortLab, name: string, writer: WriterMachine): WriterGuest {
    const { dirtyRing, ...machine } = writer;
    const firmware = writer.vcpus === 1 ? writingFirmware() : writingPairFirmware();
    const profile = { ...machine, lockstep: false, hostTscKhz: native().tscKhz() };
    const args = lab.firmwareArguments(name, firmware, profile).map((arg, at, all) => {
      // A KVM without hardware virtualization refuses to set some of the host's registers; 16-bit code needs none.
      if (all[at - 1] === '-cpu') return 'qemu64';
      return all[at - 1] === '-accel' && dirtyRing ? `${arg},dirty-ring-size=${dirtyRingEntries}` : arg;
    });
    return new WriterGuest(lab.start(name, args), writer.vcpus);
  }

  /** Orders it to add `word` to the first word of each page; it must stand. */
  order(word: number, pages: readonly number[]): void {
    const { orderPages } = this;
    for (const [vcpu, at] of orderPages.entries()) {
      const own = pages.filter((page) => page % orderPages.length === vcpu);
      giveOrder(this.ram.memory, word, own, at);
    }
  }

  get isDone(): boolean {
    return this.orderPages.every((at) => orderIsDone(this.ram.memory, at));
  }

  /** Lets it carry out an order, in as many rounds as it takes. */
  write(word: number, pages: readonly number[]): void {
    this.order(word, pages);
    for (let round = 0; !this.isDone; round++) {
      if (round === roundsMax) throw new Error(`The guest does not write; QEMU: ${this.guest.errors}`);
      // A busy host may keep one vCPU waiting through many short rounds.
      this.guest.runFor(roundNs * (1 + round));
    }
  }

  /** First word of a page. */
  wordOf(page: number): number {
    return new DataView(this.ram.memory, page * 4096).getUint16(0, true);
  }
}

/** The beginning of what carries out an order: `add es:[…], ax`, and its opposite. */
export const writerCode = {
  adds: Uint8Array.of(0x26, 0x01, 0x06),
  subtracts: Uint8Array.of(0x26, 0x29, 0x06),
} as const;

/** Changes the code of a writer that stands, from outside; returns the bit of its page. */
export function changeWriter({ port }: PortGuest, from: Uint8Array, to: Uint8Array): number {
  const bios = port.blocks.find(({ name }) => name === 'pc.bios');
  if (bios === undefined) throw new Error('The writer has no firmware');
  const code = Buffer.from(bios.memory);
  const at = code.indexOf(from);
  if (at === -1) throw new Error('The writer’s code is not what is to be changed');
  code.set(to, at);
  return bios.bitmapBit + Math.floor(at / 4096);
}

/** Lets any guest that runs the writer carry out one order; returns what its page holds then. */
export function writeWord(guest: PortGuest, word: number): number {
  giveOrder(ramOf(guest), word, [writerPages.first]);
  while (!orderIsDone(ramOf(guest))) guest.runFor(roundNs);
  return new DataView(ramOf(guest), writerPages.first * 4096).getUint16(0, true);
}

/** The same pages each time the tests run. */
export class PageDice {
  #state = 20_261_120;

  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  /** Up to `countMax` pages, some perhaps more than once. */
  pages(countMax: number): number[] {
    const { first, last } = writerPages;
    return Array.from({ length: 1 + this.below(countMax) }, () => first + this.below(last - first + 1));
  }
}
