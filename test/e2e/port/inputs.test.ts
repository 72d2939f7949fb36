/** Inputs other than frames reach the guest at the boundary of a round, and what it says on its serial line is held. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { areaOffset, entryKind, serialBytesMax, stopReason } from '../../../vmm/io/qemu/layout.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress, portFirmware, portOrder } from '../../framework/port-machine.ts';
import { access, configurePower, powerPort } from '../../framework/port-processor.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const uart = 0x3f8;
const text = (words: string): Uint8Array => new TextEncoder().encode(words);
const asker = '10.71.0.77';

/** A processor with a serial line that the port holds; released output goes to the file `consoleOf`. */
function startWithLine(lab: PortLab, name: string): PortGuest {
  const args = lab.firmwareArguments(name, portFirmware());
  const line = args.indexOf('-serial');
  args.splice(line, 2, '-chardev', 'gaia,id=ser0', '-serial', 'chardev:ser0');
  args.push('-chardev', `file,id=con0,path=${consoleOf(lab, name)}`);
  return lab.start(name, args, { portOptions: 'console=con0' });
}

function consoleOf(lab: PortLab, name: string): string {
  return join(lab.folder, `${name}.console`);
}

function say(guest: PortGuest, words: string): void {
  for (const byte of text(words)) access(guest, portOrder.write8, uart, byte);
}

/** Bytes that the UART has for the guest, read one by one. */
function hear(guest: PortGuest): string {
  let heard = '';
  while (((access(guest, portOrder.read8, uart + 5) ?? 0) & 1) === 1)
    heard += String.fromCharCode((access(guest, portOrder.read8, uart) ?? 0) & 0xff);
  return heard;
}

describeInLab('the serial line', (lab) => {
  it('says nothing before the agent releases it, and what is dropped never', () => {
    const guest = startWithLine(lab, 'says');
    const written = (): string => readFileSync(consoleOf(lab, 'says'), 'utf8');
    say(guest, 'one');
    expect(guest.takeOutput().map((bytes) => String.fromCharCode(...bytes))).toEqual(['o', 'n', 'e']);
    expect(written()).toBe('');
    guest.port.drop(guest.held.head);
    say(guest, 'two');
    guest.port.release(guest.held.head);
    expect(written()).toBe('two');
    guest.port.setLease(0n);
    say(guest, 'three');
    const { tail } = guest.held;
    expect(guest.port.release(guest.held.head)).toBe(tail);
    expect(written()).toBe('two');
    guest.port.setLease(undefined);
    guest.port.release(guest.held.head);
    expect(written()).toBe('twothree');
  });

  it('brings what was typed, also more than the UART has room for, over a load of its state', () => {
    const guest = startWithLine(lab, 'hears');
    const typed = 'The quick brown fox jumps over the lazy dog';
    guest.give(entryKind.serial, text(typed));
    expect(hear(guest).length).toBe(typed.length);
    guest.give(entryKind.serial, text(typed));
    guest.runFor(1e6);
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    expect(hear(guest)).toBe(typed);
    guest.port.pause();
    guest.port.load(bytes, checksum);
    expect(hear(guest)).toBe(typed);
  });

  it('drops and counts what finds no room', () => {
    const guest = startWithLine(lab, 'floods');
    const dropped = (): bigint => new DataView(guest.area).getBigUint64(areaOffset.serialDropped, true);
    guest.give(entryKind.serial, new Uint8Array(serialBytesMax).fill(0x61));
    guest.give(entryKind.serial, new Uint8Array(serialBytesMax).fill(0x62));
    guest.runFor(1e6);
    expect(dropped()).toBeGreaterThan(0n);
    expect(dropped()).toBeLessThanOrEqual(BigInt(serialBytesMax));
  });

  it('keeps two in lockstep equal', () => {
    const pair = LockstepPair.clone(startWithLine(lab, 'left'), startWithLine(lab, 'right'));
    for (const guest of pair.guests) guest.give(entryKind.serial, text('input for both of them'));
    const after = pair.round(1e6, []);
    expect(after.stopped[1]).toEqual(after.stopped[0]);
    for (const guest of pair.guests) say(guest, 'output');
    expect(hear(pair.leader)).toBe('input for both of them');
    expect(hear(pair.backup)).toBe('input for both of them');
    expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
  });
});

describeInLab('the power button', (lab) => {
  it('is seen by the guest in the very round, on both sides alike', () => {
    const pair = LockstepPair.clone(
      lab.startFirmware('left', portFirmware()),
      lab.startFirmware('right', portFirmware()),
    );
    const pressed = 1 << 8;
    for (const guest of pair.guests) {
      configurePower(guest);
      expect((access(guest, portOrder.read16, powerPort) ?? 0) & pressed).toBe(0);
      // The guest must want to know.
      access(guest, portOrder.write16, powerPort + 2, pressed);
      guest.give(entryKind.power);
      expect((access(guest, portOrder.read16, powerPort) ?? 0) & pressed).toBe(pressed);
    }
    expect(pair.backup.virtualNs).toBe(pair.leader.virtualNs);
  });
});

describeInLab('a reset among the inputs', (lab) => {
  it('resets the machine before what comes behind it, without ending the round', () => {
    const guest = lab.startFirmware('reset', portFirmware());
    configurePower(guest);
    expect(access(guest, portOrder.read16, powerPort + 4)).toBe(0);
    guest.give(entryKind.reset);
    expect(guest.runFor(1e6).reason).toBe(stopReason.deadline);
    expect(access(guest, portOrder.read16, powerPort + 4)).toBe(0xffff);
  });
});

describe.each([{ lockstep: true }, { lockstep: false }])(
  'the network cable (lockstep: $lockstep)',
  (profile) => {
    describeInLab('of a guest', (lab) => {
      it('carries nothing while it is out, and all again when it is in', async () => {
        const guest = await lab.boot('guest', 'memcached', { ...profile, hostTscKhz: 2_000_000 });
        const request = arpRequest(guestAddress, asker);
        const answers = (frames: readonly Uint8Array[]): number => {
          guest.takeOutput();
          guest.runFor(50e6, frames);
          return guest.takeOutput().filter((frame) => arpAsker(frame, guestAddress) === asker).length;
        };
        expect(answers([request, request])).toBe(2);
        guest.give(entryKind.link, Uint8Array.of(0));
        expect(answers([request, request])).toBe(0);
        expect(guest.deliverTail).toBe(guest.port.deliver.head);
        guest.give(entryKind.link, Uint8Array.of(1));
        // The guest's kernel takes its time to believe it.
        guest.runFor(3e9);
        expect(answers([request, request])).toBe(2);
      });
    });
  },
);
