/** Device state: equal guests save equal bytes, any machine takes it any number of times, and code stays translated. */
import { describe, expect, it } from 'vitest';
import { setBit } from '../../../merkle/bitmap.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import {
  giveOrder,
  guestAddress,
  orderIsDone,
  tickingFirmware,
  ticksOf,
  writingFirmware,
} from '../../framework/port-machine.ts';
import { ramOf } from '../../framework/port-processor.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { findImage } from '../../../images/index.ts';

const asker = '10.71.0.77';
const loads = 20;
const request = arpRequest(guestAddress, asker);

function saved(guest: PortGuest): Buffer {
  const { bytes } = guest.port.save();
  return Buffer.from(guest.port.deviceState.slice(0, bytes));
}

describe.each(['pc', 'q35', 'microvm'] as const)('the device state of a %s', (machine) => {
  describeInLab('in lockstep', (lab) => {
    it('is byte for byte the same on both sides, wherever the two have been meanwhile', async () => {
      const leader = await lab.boot('leader', 'memcached', { machine });
      const pair = LockstepPair.clone(
        leader,
        lab.startImage('backup', await findImage('memcached'), { machine }),
      );
      for (let round = 0; round < 50; round++) {
        const { stopped } = pair.round(700_123 + round, [request]);
        expect(stopped[1]).toEqual(stopped[0]);
        // Time passes on one side only.
        const left = saved(pair.leader);
        pair.leader.port.collect();
        const right = saved(pair.backup);
        const differing = [...left.keys()].filter((at) => left[at] !== right[at]);
        expect(differing, `round ${round}`).toEqual([]);
        expect(right.length).toBe(left.length);
      }
    });

    it(`is taken ${loads} times in a row, and the guest lives`, async () => {
      const guest = await lab.boot('loads', 'memcached', { machine });
      for (let times = 0; times < loads; times++) {
        guest.port.pause();
        const { bytes, checksum } = guest.port.save();
        guest.port.load(bytes, checksum, times % 2 === 0);
        guest.takeOutput();
        guest.runFor(20e6, [request]);
        const answers = guest.takeOutput().flatMap((frame) => arpAsker(frame, guestAddress) ?? []);
        expect(answers, `load ${times}`).toEqual([asker]);
      }
    });
  });
});

describeInLab('the clock of a free-running guest', (lab) => {
  it('goes on from the ticks of a state that is behind its own', () => {
    const guest = lab.startFirmware('ticks', tickingFirmware(), { lockstep: false });
    const run = (realNsMax: number) => {
      const { virtualNs } = guest.runWithin({ realNsMax });
      return { virtualNs, ticks: ticksOf(ramOf(guest)) };
    };
    const first = run(50e6);
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    const further = run(200e6);
    const ticksPerNs = (further.ticks - first.ticks) / (further.virtualNs - first.virtualNs);
    guest.port.pause();
    guest.port.load(bytes, checksum);
    const again = run(50e6);
    expect((again.ticks - first.ticks) / (again.virtualNs - first.virtualNs) / ticksPerNs).toBeCloseTo(1, 0);
  });
});

/** The beginning of `add es:[…], ax` in the writer, and of `sub es:[…], ax`. */
const addition = Uint8Array.of(0x26, 0x01, 0x06);
const subtraction = Uint8Array.of(0x26, 0x29, 0x06);
const page = 0x10;

describeInLab('code that the agent has changed', (lab) => {
  function write(guest: PortGuest, word: number): number {
    giveOrder(ramOf(guest), word, [page]);
    while (!orderIsDone(ramOf(guest))) guest.runFor(100_000);
    return new DataView(ramOf(guest), page * 4096).getUint16(0, true);
  }

  /** Changes the writer's code from outside; returns the bit of the page. */
  function change(guest: PortGuest, from: Uint8Array, to: Uint8Array): number {
    const bios = guest.port.blocks.find(({ name }) => name === 'pc.bios');
    if (bios === undefined) throw new Error('A pc has firmware');
    const code = Buffer.from(bios.memory);
    const at = code.indexOf(from);
    expect(at).toBeGreaterThan(0);
    code.set(to, at);
    return bios.bitmapBit + Math.floor(at / 4096);
  }

  it('runs after a load that drops translations, and after one that keeps them only when its page is named', () => {
    const guest = lab.startFirmware('writer', writingFirmware());
    expect(write(guest, 9)).toBe(9);
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    change(guest, addition, subtraction);
    guest.port.load(bytes, checksum);
    expect(write(guest, 2)).toBe(7);

    guest.port.pause();
    const again = guest.port.save();
    const bit = change(guest, subtraction, addition);
    guest.port.load(again.bytes, again.checksum, true);
    // That it goes on with what it has translated shows that translations were kept.
    expect(write(guest, 2)).toBe(5);
    setBit(guest.port.applyBitmap, bit);
    expect(guest.port.invalidate()).toBe(1);
    expect(write(guest, 2)).toBe(7);
  });
});
