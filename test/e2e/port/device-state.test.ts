/** Device state: equal guests save equal bytes, any machine takes it any number of times, and code stays translated. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { setBit } from '../../../merkle/bitmap.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress, tickingFirmware, ticksOf, writingFirmware } from '../../framework/port-machine.ts';
import { ramOf } from '../../framework/port-processor.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { QmpClient } from '../../framework/qmp-client.ts';
import { changeWriter, writerCode, writeWord } from '../../framework/writer-guest.ts';
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
    const further = run(400e6);
    const ticksPerNs = (further.ticks - first.ticks) / (further.virtualNs - first.virtualNs);
    guest.port.pause();
    guest.port.load(bytes, checksum);
    const again = run(200e6);
    expect((again.ticks - first.ticks) / (again.virtualNs - first.virtualNs) / ticksPerNs).toBeCloseTo(1, 0);
  });
});

/** How often QEMU has dropped what it translated. */
interface Flushes {
  /** All code. */
  readonly code: number;
  /** All addresses: QEMU calls it a partial flush where not every mode of the processor was in use. */
  readonly addresses: number;
}

async function flushes(qmp: QmpClient): Promise<Flushes> {
  const answer = (await qmp.execute('x-query-jit')) as { 'human-readable-text': string };
  const count = (what: string): number => {
    const [, digits] = new RegExp(`^${what} +(\\d+)$`, 'm').exec(answer['human-readable-text']) ?? [];
    if (digits === undefined) throw new Error(`No "${what}" in: ${answer['human-readable-text']}`);
    return Number(digits);
  };
  return {
    code: count('TB flush count'),
    addresses: count('TLB full flushes') + count('TLB partial flushes'),
  };
}

describeInLab('code that the agent has changed', (lab) => {
  it('runs after a load that drops translations, and after one that keeps them only when its page is named', () => {
    const guest = lab.startFirmware('writer', writingFirmware());
    expect(writeWord(guest, 9)).toBe(9);
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    changeWriter(guest, writerCode.adds, writerCode.subtracts);
    guest.port.load(bytes, checksum);
    expect(writeWord(guest, 2)).toBe(7);

    guest.port.pause();
    const again = guest.port.save();
    const bit = changeWriter(guest, writerCode.subtracts, writerCode.adds);
    guest.port.load(again.bytes, again.checksum, true);
    // That it goes on with what it has translated shows that translations were kept.
    expect(writeWord(guest, 2)).toBe(5);
    setBit(guest.port.applyBitmap, bit);
    expect(guest.port.invalidate()).toBe(1);
    expect(writeWord(guest, 2)).toBe(7);
  });

  it(`stays translated over ${loads} loads that keep it, addresses over none, and neither over another load`, async () => {
    const qmpPath = join(lab.folder, 'flushes.qmp');
    const guest = lab.startFirmware('flushes', writingFirmware(), { qmpPath });
    const qmp = await QmpClient.connect(qmpPath);
    writeWord(guest, 1);
    let before = await flushes(qmp);
    expect(writeWord(guest, 1)).toBe(2);
    expect(await flushes(qmp)).toEqual(before);
    for (let times = 0; times < loads; times++) {
      guest.port.pause();
      const { bytes, checksum } = guest.port.save();
      guest.port.load(bytes, checksum, true);
      // As good as new, and named.
      setBit(guest.port.applyBitmap, changeWriter(guest, writerCode.adds, writerCode.adds));
      expect(guest.port.invalidate()).toBe(1);
      expect(writeWord(guest, 1)).toBe(times + 3);
      const after = await flushes(qmp);
      expect(after.code, `load ${times}`).toBe(before.code);
      expect(after.addresses, `load ${times}`).toBeGreaterThan(before.addresses);
      before = after;
    }
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    guest.port.load(bytes, checksum);
    expect(writeWord(guest, 1)).toBe(loads + 3);
    expect((await flushes(qmp)).code).toBeGreaterThan(before.code);
    qmp.close();
  });
});
