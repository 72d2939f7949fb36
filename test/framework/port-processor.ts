/** The test plays the processor: single accesses to the ports of a machine that runs `portFirmware`. */
import { stopReason } from '../../vmm/io/qemu/layout.ts';
import type { PortGuest } from './port-guest.ts';
import { givePortOrder, portOrder, portOrderResult } from './port-machine.ts';

const roundNs = 1e6;

export function ramOf(guest: PortGuest): ArrayBuffer {
  const ram = guest.port.blocks.find(({ name }) => name === 'ram0');
  if (ram === undefined) throw new Error(`Guest ${guest.name} has no ram0`);
  return ram.memory;
}

/** Lets the processor do one port access; undefined when the round ends before it is done. */
export function access(guest: PortGuest, what: number, port: number, value = 0): number | undefined {
  givePortOrder(ramOf(guest), what, port, value);
  // A busy host may keep a free-running processor waiting.
  while (guest.runFor(roundNs).reason === stopReason.deadline) {
    const result = portOrderResult(ramOf(guest));
    if (result !== undefined) return result;
  }
  return undefined;
}

/** Where `configurePower` puts the registers: status, enable, then control at 4. */
export const powerPort = 0x600;

/** Gives the power management of a pc its ports, as a BIOS would. */
export function configurePower(guest: PortGuest): void {
  for (const [register, value] of [
    [0x40, powerPort | 1],
    [0x80, 1],
  ] as const) {
    access(guest, portOrder.write32, 0xcf8, 0x8000_0b00 | register);
    access(guest, portOrder.write32, 0xcfc, value);
  }
}
