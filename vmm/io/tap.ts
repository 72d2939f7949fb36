/**
 * The tap between the host's bridge and one replica's QEMU. QEMU alone reads it and writes released frames; the
 * agent only announces. The device vanishes with its last descriptor, so nothing is left behind by a crash.
 */
import { writeSync } from 'node:fs';
import { native } from '../../native/binding.ts';
import { GaiaError } from '../core/errors.ts';

const etherTypeRarp = 0x8035;

export function parseMac(text: string): Uint8Array {
  const parts = text.split(':');
  if (parts.length !== 6 || parts.some((part) => !/^[0-9a-f]{2}$/i.test(part)))
    throw new GaiaError('GAIA_MAC', `"${text}" is not a MAC address such as 52:54:00:12:34:56`);
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

/** Broadcast in the guest's name, so that switches learn where it is now: a RARP request (RFC 903). */
export function announcement(mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(60);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(mac, 6);
  view.setUint16(12, etherTypeRarp);
  view.setUint16(14, 1); // Ethernet
  view.setUint16(16, 0x0800); // IPv4
  frame[18] = 6;
  frame[19] = 4;
  view.setUint16(20, 3); // reverse request
  frame.set(mac, 22);
  frame.set(mac, 32);
  return frame;
}

export class Tap {
  readonly fd: number;
  readonly #announcement: Uint8Array;

  constructor(fd: number, mac: string) {
    this.fd = fd;
    this.#announcement = announcement(parseMac(mac));
  }

  setCarrier(up: boolean): void {
    native().tapCarrier(this.fd, up);
  }

  announce(): void {
    writeSync(this.fd, this.#announcement);
  }
}
