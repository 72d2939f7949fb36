/** A guest of a few dozen instructions that writes just the pages it is told to, under KVM as well as under TCG. */
import { closeSync, openSync } from 'node:fs';
import type { GuestBlock } from '../../vmm/io/qemu/port.ts';
import type { PortGuest } from './port-guest.ts';
import type { PortLab } from './port-lab.ts';
import { giveOrder, orderIsDone, writingFirmware } from './port-machine.ts';
import { ramOf } from './port-processor.ts';

/** Real-mode memory that nothing else uses: from behind the order page to the video memory. */
export const writerPages = { first: 0x10, last: 0x9e } as const;

const roundNs = 200_000;
const roundsMax = 1000;

/** Undefined when this machine has a KVM that can be opened; tiny guests run under any. */
export function whyNoKvm(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    return `/dev/kvm does not open: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`;
  }
}

export class WriterGuest {
  readonly guest: PortGuest;
  readonly ram: GuestBlock;

  private constructor(guest: PortGuest) {
    this.guest = guest;
    const ram = guest.port.blocks.find(({ name }) => name === 'ram0');
    if (ram === undefined) throw new Error('The guest has no ram0');
    this.ram = ram;
  }

  static start(lab: PortLab, name: string, accelerator: 'kvm' | 'tcg'): WriterGuest {
    const args = lab.firmwareArguments(name, writingFirmware(), { accelerator, lockstep: false });
    // A KVM without hardware virtualization refuses to set some of the host's registers; 16-bit code needs none.
    const cpu = args.map((arg, at) => (args[at - 1] === '-cpu' ? 'qemu64' : arg));
    return new WriterGuest(lab.start(name, cpu));
  }

  /** Orders it to add `word` to the first word of each page; it must stand. */
  order(word: number, pages: readonly number[]): void {
    giveOrder(this.ram.memory, word, pages);
  }

  get isDone(): boolean {
    return orderIsDone(this.ram.memory);
  }

  /** Lets it carry out an order, in as many rounds as it takes. */
  write(word: number, pages: readonly number[]): void {
    this.order(word, pages);
    for (let round = 0; !this.isDone; round++) {
      if (round === roundsMax) throw new Error(`The guest does not write; QEMU: ${this.guest.errors}`);
      this.guest.runFor(roundNs);
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
