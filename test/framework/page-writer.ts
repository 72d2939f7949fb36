/**
 * A guest that dirties as many pages as it is told to, one after the other, and otherwise counts: its counter tells
 * from outside when its vCPU runs. It has no kernel and no devices of its own, so nothing else is dirty.
 */
import type { PortGuest } from './port-guest.ts';
import { firmwareOf, orderPage } from './port-machine.ts';

/** Real mode with one flat segment for all memory. Pages are written from 16 MiB on. */
export function pageWriterFirmware(): Uint8Array {
  return firmwareOf(
    [
      'fa 31c0 8ed8', //             cli; ds = 0
      '2e660f01164ef0', //           lgdt [descriptors]
      '0f20c0 0c01 0f22c0', //       protected mode on
      'bb0800 8ec3', //              es = the flat segment
      '24fe 0f22c0', //              protected mode off; es keeps its limit
      '66ff060870', //         wait: [0x7008] += 1
      '668b0e0070 6685c9 74f1', //   ecx = [0x7000]; jump to wait while it is 0
      '66bf00000001', //             edi = 16 MiB
      '266766ff07', //         next: es:[edi] += 1
      '6681c700100000', //           edi += 4096
      '6649 75f0', //                ecx -= 1; jump to next until it is 0
      '66c706007000000000 ebd0', //  [0x7000] = 0; jump to wait
      '0f0054f00f00', // descriptors: where the table lies, 16 bytes
      '0000000000000000 ffff00000092cf00', // none, and all memory for data
    ].join(''),
  );
}

const doneLimitMs = 20_000;

export class PageWriter {
  readonly guest: PortGuest;
  readonly #pages: Uint32Array;
  readonly #counter: Uint32Array;

  /** A standing guest that would run `pageWriterFirmware`. */
  constructor(guest: PortGuest) {
    this.guest = guest;
    const ram = guest.port.blocks.find(({ name }) => name === 'ram0');
    if (ram === undefined) throw new Error('The guest has no ram0');
    this.#pages = new Uint32Array(ram.memory, orderPage * 4096, 1);
    this.#counter = new Uint32Array(ram.memory, orderPage * 4096 + 8, 1);
  }

  /** Of the running guest; the page that holds it is dirty whenever the guest has run. */
  get counter(): number {
    return Atomics.load(this.#counter, 0);
  }

  /** Makes the running guest dirty `pages` pages, its own counter's among them, and waits until it has. */
  dirty(pages: number): void {
    Atomics.store(this.#pages, 0, pages - 1);
    const begun = performance.now();
    while (Atomics.load(this.#pages, 0) !== 0) {
      if (performance.now() - begun > doneLimitMs)
        throw new Error(`The guest has not written ${pages} pages after 20 s; QEMU: ${this.guest.errors}`);
    }
  }

  /** Waits until the guest counts on from `counter`. */
  awaitRunning(counter: number): void {
    const begun = performance.now();
    while (this.counter === counter) {
      if (performance.now() - begun > doneLimitMs)
        throw new Error(`The guest does not run after 20 s; QEMU: ${this.guest.errors}`);
    }
  }
}
