/** The machines that port tests run: a guest image, and tiny firmware that replaces BIOS and kernel. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Image } from '../../images/index.ts';
import { machineArguments, type MachineProfile } from '../../vmm/io/qemu/profile.ts';

export const guestAddress = '10.71.0.2';
const hostAddress = '10.71.0.1';
export const hostNetwork = `${hostAddress}/24`;

const common = {
  machine: 'pc',
  lockstep: true,
  vcpus: 1,
  kernel: null,
  initrd: null,
  appendExtra: [],
  mac: '52:54:00:00:71:02',
  rtcBase: '2026-01-01T00:00:00',
} as const satisfies Partial<MachineProfile>;

/** Interface names have room for 15 characters, and each guest of a namespace needs its own. */
export type PlacedProfile = Partial<MachineProfile> & { readonly tapName: string };

/** In lockstep on a pc with the least memory unless `changes` say otherwise. */
export function imageArguments(image: Image, changes: PlacedProfile): string[] {
  return machineArguments({
    ...common,
    memoryBytes: image.memoryBytesMin,
    kernel: image.kernel,
    initrd: image.initrd,
    appendExtra: [...image.kernelArguments, `gaia.ip=${guestAddress}/24`, `gaia.gw=${hostAddress}`],
    ...changes,
  });
}

/** A machine that runs `firmware` from its first instruction on; its files go to `folder`. */
export function firmwareArguments(firmware: Uint8Array, folder: string, changes: PlacedProfile): string[] {
  const file = join(folder, `${changes.tapName}.firmware`);
  writeFileSync(file, firmware);
  // A profile boots something; what is on the disk is never read.
  const disk = join(folder, `${changes.tapName}.disk`);
  writeFileSync(disk, new Uint8Array(4096));
  return [...machineArguments({ ...common, memoryBytes: 64 << 20, disk, ...changes }), '-bios', file];
}

const firmwareBytes = 65_536;
const resetVector = 0xfff0;

/** 64 KiB of 16-bit code that the processor enters at f000:f000. */
export function firmwareOf(code: string): Uint8Array {
  const firmware = new Uint8Array(firmwareBytes).fill(0xf4);
  firmware.set(Buffer.from(code.replaceAll(' ', ''), 'hex'), 0xf000);
  firmware.set(Buffer.from('ea00f000f0', 'hex'), resetVector);
  return firmware;
}

/** Halts at once and for good. */
export function haltingFirmware(): Uint8Array {
  return firmwareOf('fa f4 ebfd'); // cli; hlt; jump back
}

/** Page that holds the writer's orders: a word to add, then segments up to a zero. */
export const orderPage = 7;
/** The same for the second processor of `writingPairFirmware`. */
export const secondOrderPage = 8;
/** This word, once added everywhere, ends the writer in a halt. */
export const lastOrder = 0xffff;

const writerLoop = [
  'f390 a10070 85c0 74f7', // wait: pause; ax = [0x7000]; jump to wait while it is 0
  'be0270', //               si = 0x7002
  '8b1c 85db 740b', //       next: bx = [si]; jump to done when it is 0
  '8ec3 2601060000', //      es = bx; es:[0] += ax
  '4646 ebef', //            si += 2; jump to next
  'c70600700000', //         done: [0x7000] = 0
  '3dffff 75d8', //          jump to wait unless ax was the last order
  'f4 ebfd', //              hlt; jump back
].join('');

/**
 * Spins on the order page. When the agent has put a word there, adds it to the first word of each segment listed,
 * clears the order and spins again.
 */
export function writingFirmware(): Uint8Array {
  return firmwareOf(
    [
      'fa 31c0 8ed8', // cli; ds = 0
      writerLoop,
    ].join(''),
  );
}

/** The same on two processors, each with an order page of its own: the first starts the second. */
export function writingPairFirmware(): Uint8Array {
  return firmwareOf(
    [
      'fa 66b91b000000 0f32', //       cli; read the APIC's base
      'bb0001 f6c401 7435', //         bx = 0x100; jump to write unless this is the first processor
      '2e660f011673f0', //             lgdt [descriptors]
      '0f20c0 0c01 0f22c0', //         protected mode on
      'bb0800 8ec3', //                es = the flat segment
      '24fe 0f22c0', //                protected mode off; es keeps its limit
      '266766c7050003e0fe00450c00', // INIT to all others
      '266766c7050003e0feff460c00', // they start at 0xff000, where this code is
      '31db', //                       bx = 0
      '8edb', //                       write: ds = bx
      writerLoop,
      '0f0079f00f00', //               descriptors: where the table lies, 16 bytes
      '0000000000000000 ffff00000093cf00', // none, and all memory for data, accessed already: ROM stays as it is
    ].join(''),
  );
}

/**
 * Spins on the order page: does port input and output for whoever writes there, so that a test plays the processor.
 * Bytes of the order page: 0 port, 2 what to do, 4 value to write, 8 value read.
 */
export function portFirmware(): Uint8Array {
  return firmwareOf(
    [
      'fa 31c0 8ed8', //                        cli; ds = 0
      'f390 8b160070 85d2 74f6', //             wait: pause; dx = [0x7000]; jump to wait while it is 0
      'c70600700000', //                        [0x7000] = 0, so that nothing is done twice
      '8b1e0270 66a10470', //                   bx = [0x7002]; eax = [0x7004]
      '80fb01 7417 80fb02 7415 80fb04 7413', // jump to the write of 1, 2 or 4 bytes
      '80fb11 7412 80fb12 7410', //             jump to the read of 1 or 2 bytes
      'f4 eb12', //                             anything else: hlt; jump to done
      'ee eb0f ef eb0c 66ef eb08', //           out dx, al; out dx, ax; out dx, eax
      'ec eb01 ed 66a30870', //                 in al, dx; in ax, dx; [0x7008] = eax
      'c70602700000 ebb2', //                   done: [0x7002] = 0; jump to wait
    ].join(''),
  );
}

/** What `portFirmware` is to do. */
export const portOrder = {
  write8: 1,
  write16: 2,
  write32: 4,
  read8: 0x11,
  read16: 0x12,
  halt: 0x20,
} as const;

/** The guest must stand. */
export function givePortOrder(memory: ArrayBuffer, what: number, port: number, value = 0): void {
  const order = new DataView(memory, orderPage * 4096, 4096);
  order.setUint16(2, what, true);
  order.setUint32(4, value, true);
  order.setUint16(0, port, true);
}

/** The value read, once the order is done. */
export function portOrderResult(memory: ArrayBuffer): number | undefined {
  const order = new DataView(memory, orderPage * 4096, 4096);
  return order.getUint16(2, true) === 0 ? order.getUint16(8, true) : undefined;
}

/** Writes its time stamp counter to the order page, again and again. */
export function tickingFirmware(): Uint8Array {
  return firmwareOf(
    [
      'fa 31c0 8ed8', //                       cli; ds = 0
      'f390 0f31 66a30070 6689160470 ebf1', // again: pause; rdtsc; [0x7000] = eax; [0x7004] = edx; jump to again
    ].join(''),
  );
}

export function ticksOf(memory: ArrayBuffer): number {
  return Number(new DataView(memory, orderPage * 4096, 8).getBigUint64(0, true));
}

/** Orders the writer to add `word` to the first word of each page. The guest must stand. */
export function giveOrder(
  memory: ArrayBuffer,
  word: number,
  pages: readonly number[],
  at: number = orderPage,
): void {
  const order = new DataView(memory, at * 4096, 4096);
  // Real mode: a segment counts 16 bytes.
  [...pages.map((page) => page * 256), 0].forEach((segment, index) => {
    order.setUint16(2 + 2 * index, segment, true);
  });
  order.setUint16(0, word, true);
}

export function orderIsDone(memory: ArrayBuffer, at: number = orderPage): boolean {
  return new DataView(memory, at * 4096).getUint16(0, true) === 0;
}
