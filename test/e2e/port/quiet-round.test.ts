/** Free-running guests: a round ends when the guest has taken its input and gone quiet, when time is up, or at once. */
import { closeSync, openSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../../images/index.ts';
import { hasBit, setBit } from '../../../merkle/bitmap.ts';
import { entryKind, pageBytes, stopReason } from '../../../vmm/io/qemu/layout.ts';
import type { GuestPort, RoundLimits } from '../../../vmm/io/qemu/port.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { differingPages, MemoryCopy } from '../../framework/guest-memory.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress, haltingFirmware, writingFirmware } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const untilQuiet: RoundLimits = { untilIdle: true, realNsMax: 20e9 };
const askers = Array.from({ length: 200 }, (_, number) => `10.71.0.${10 + number}`);
const requests = askers.map((asker) => arpRequest(guestAddress, asker));
/** More than any card has buffers for. */
const floodAskers = Array.from({ length: 6 }, () => askers).flat();
const flood = floodAskers.map((asker) => arpRequest(guestAddress, asker));
/** Requests that any card has buffers for. */
const liveBatch = 20;
const answersLimitMs = 20_000;
/** What QEMU's own 4-second watchdogs and the like could not explain. */
const longMs = 5000;

function whyNoKvm(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    return `/dev/kvm does not open: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`;
  }
}

function answered(guest: PortGuest): string[] {
  return guest.takeOutput().flatMap((frame) => arpAsker(frame, guestAddress) ?? []);
}

/** The same of a running guest, once there are `count` of them. */
function awaitAnswered(guest: PortGuest, count: number): string[] {
  const got: string[] = [];
  const begun = performance.now();
  while (got.length < count) {
    if (performance.now() - begun > answersLimitMs)
      throw new Error(`Guest ${guest.name} gave ${got.length} of ${count} answers; QEMU: ${guest.errors}`);
    got.push(...answered(guest));
  }
  return got;
}

/** Makes `backup` equal to `leader`, both standing after a round: the agent's part in a few lines. Returns pages sent. */
function reconcile(leader: PortGuest, backup: PortGuest, union: Uint32Array): number {
  const to = backup.port;
  const divergent = differingInUnion(leader.port, to, union);
  const { bytes, checksum } = leader.port.save();
  to.deviceState.set(leader.port.deviceState.subarray(0, bytes));
  to.load(bytes, checksum, true);
  to.collect();
  // Loading may have written pages of its own.
  to.dirtyBitmap.forEach((word, index) => (union[index] = (union[index] ?? 0) | word));
  const sent = differingInUnion(leader.port, to, union);
  expect(to.invalidate()).toBe(sent);
  to.applyBitmap.fill(0);
  to.deliver.moveTo(leader.deliverTail, leader.port.deliver.head);
  backup.takeOutput();
  to.drop(backup.held.head);
  return Math.max(divergent, sent);
}

/** Copies what differs and notes it in the apply bitmap. */
function differingInUnion(from: GuestPort, to: GuestPort, union: Uint32Array): number {
  let pages = 0;
  for (const [index, block] of from.blocks.entries()) {
    const other = to.blocks[index];
    if (other === undefined) throw new Error(`No block ${block.name}`);
    for (let page = 0; page < block.pageCount; page++) {
      if (!hasBit(union, block.bitmapBit + page)) continue;
      const left = Buffer.from(block.memory, page * pageBytes, pageBytes);
      const right = Buffer.from(other.memory, page * pageBytes, pageBytes);
      if (left.equals(right)) continue;
      left.copy(right);
      setBit(to.applyBitmap, block.bitmapBit + page);
    }
  }
  for (let bit = 0; bit < to.applyBitmap.length * 32; bit++) if (hasBit(to.applyBitmap, bit)) pages++;
  return pages;
}

describe.each([
  { accelerator: 'kvm', why: whyNoKvm() },
  { accelerator: 'tcg', why: undefined },
] as const)('under $accelerator', ({ accelerator, why }) => {
  describeInLab(
    'a bare processor',
    (lab) => {
      function start(name: string, firmware: Uint8Array): PortGuest {
        const args = lab.firmwareArguments(name, firmware, { accelerator, lockstep: false });
        // A KVM without hardware virtualization refuses to set some of the host's registers; 16-bit code needs none.
        return lab.start(
          name,
          args.map((arg, at) => (args[at - 1] === '-cpu' ? 'qemu64' : arg)),
        );
      }

      it('that halts ends every round as idle, long before its time is up', () => {
        const guest = start('halts', haltingFirmware());
        const begun = performance.now();
        for (let round = 0; round < 50; round++) {
          const stopped = guest.runWithin(untilQuiet);
          expect(stopped).toMatchObject({ reason: stopReason.idle, idle: true });
        }
        expect(performance.now() - begun).toBeLessThan(longMs);
      });

      it('that spins ends no round as idle, but when its real time is up and not before', () => {
        const guest = start('spins', writingFirmware());
        for (let round = 0; round < 20; round++) {
          const begun = performance.now();
          const stopped = guest.runWithin({ untilIdle: true, realNsMax: 5e6 });
          expect(stopped).toMatchObject({ reason: stopReason.deadline, idle: false });
          expect(performance.now() - begun).toBeGreaterThanOrEqual(5);
        }
      });

      it('that spins stops at once when told so, and is told alike twice', () => {
        const guest = start('stops', writingFirmware());
        for (let round = 0; round < 50; round++) {
          guest.beginWithin({});
          const stopped = guest.port.stop();
          expect(stopped).toMatchObject({ reason: stopReason.pause, idle: false });
          expect(guest.port.takeStopped()).toEqual(stopped);
          expect(guest.port.stop()).toEqual(stopped);
        }
      });
    },
    why,
  );
});

describe.each([
  { machine: 'pc', vcpus: 1 },
  { machine: 'pc', vcpus: 2 },
  { machine: 'microvm', vcpus: 2 },
  { machine: 'q35', vcpus: 1 },
] as const)('a service on a $machine with $vcpus vCPUs', ({ machine, vcpus }) => {
  describeInLab('that runs free', (lab) => {
    const profile = { machine, vcpus, lockstep: false, hostTscKhz: 2_000_000 } as const;
    let guest: PortGuest;

    beforeAll(async () => {
      guest = await lab.boot('leader', 'memcached', profile);
      // What a start leaves to do.
      while (guest.runWithin({ untilIdle: true, realNsMax: 100e6 }).reason !== stopReason.idle);
    });

    it('takes all input in one round, also what it has no buffers for at first, and has answered all', () => {
      for (let round = 0; round < 10; round++) {
        answered(guest);
        const stopped = guest.runWithin(untilQuiet, flood);
        expect(stopped).toMatchObject({ reason: stopReason.idle, idle: true });
        expect(stopped.deliverTail).toBe(guest.port.deliver.head);
        expect(answered(guest).sort()).toEqual(floodAskers.sort());
        guest.port.drop(guest.held.head);
      }
    });

    it('keeps what it has not taken first in line over stops, a pause and the death of its agent', () => {
      const got: string[] = [];
      answered(guest);
      guest.beginWithin({}, flood);
      expect(guest.port.stop().deliverTail).not.toBe(guest.port.deliver.head);
      guest.takeStopped();
      got.push(...answered(guest));
      const { deliverTail } = guest;
      expect(guest.port.pause().deliverTail).toBe(deliverTail);
      guest.hangUp();
      guest.claimAgain();
      expect(guest.deliverTail).toBe(deliverTail);
      guest.runWithin(untilQuiet);
      got.push(...answered(guest));
      expect(guest.deliverTail).toBe(guest.port.deliver.head);
      expect(got.sort()).toEqual(floodAskers.sort());
      guest.port.drop(guest.held.head);
    });

    it('answers all that it is given in the midst of a round before that ends', () => {
      answered(guest);
      guest.beginWithin({});
      for (let from = 0; from < requests.length; from += liveBatch) {
        for (const request of requests.slice(from, from + liveBatch)) guest.give(entryKind.frame, request);
        expect(guest.port.deliverLive(guest.port.deliver.head)).toBe(guest.port.deliver.head);
        const batch = askers.slice(from, from + liveBatch);
        expect(awaitAnswered(guest, batch.length).sort()).toEqual([...batch].sort());
        expect(guest.takeStopped()).toBeUndefined();
      }
      expect(guest.port.stop().reason).toBe(stopReason.pause);
      guest.port.drop(guest.held.head);
    });

    it('keeps what it was given in the midst of a round and has not taken first in line for the next', () => {
      const asked: string[] = [];
      answered(guest);
      guest.beginWithin({});
      // A guest that runs makes room meanwhile, but not for so many.
      let tail: number;
      do {
        for (const request of flood) guest.give(entryKind.frame, request);
        asked.push(...floodAskers);
        tail = guest.port.deliverLive(guest.port.deliver.head);
      } while (tail === guest.port.deliver.head);
      const got = awaitAnswered(guest, 1);
      expect(guest.deliverTail).toBe(tail);
      expect(guest.port.stop().deliverTail).toBe(tail);
      got.push(...answered(guest));
      expect(got.length).toBeLessThan(asked.length);
      const stopped = guest.runWithin(untilQuiet);
      expect(stopped.deliverTail).toBe(guest.port.deliver.head);
      got.push(...answered(guest));
      expect(got.sort()).toEqual(asked.sort());
      guest.port.drop(guest.held.head);
    });

    it('is not touched from collecting to resuming, and no page that changed is missing', async () => {
      const copy = new MemoryCopy(guest.port);
      await lab.bringUp('leader', '10.71.0.1/24');
      guest.port.divertIngress(true);
      for (let round = 0; round < 30; round++) {
        guest.beginWithin({}, requests);
        guest.port.stop();
        guest.takeStopped();
        guest.port.collect();
        expect(copy.missing(copy.renew(), guest.port.dirtyBitmap), `round ${round}`).toEqual([]);
        // Input comes in meanwhile; the state is read; nothing of it is the guest's.
        await lab.namespace.run('bash', ['-c', 'echo >/dev/udp/10.71.0.2/9']);
        guest.port.save();
        guest.port.collect();
        expect(
          copy.renew().some((word) => word !== 0),
          `round ${round}`,
        ).toBe(false);
        guest.takeIngress();
      }
      while (guest.runWithin(untilQuiet).reason !== stopReason.idle);
      guest.port.drop(guest.held.head);
      guest.takeOutput();
    });

    it('is the same as another one after each round once their differences are carried over', async () => {
      const backup = lab.startImage('backup', await findImage('memcached'), profile);
      guest.port.pause();
      guest.port.collect();
      const all = new Uint32Array(guest.port.dirtyBitmap.length).fill(0xffff_ffff);
      for (const port of [guest.port, backup.port]) port.collect();
      let divergent = 0;
      for (let round = 0; round < 40; round++) {
        const union = round === 0 ? all : unionOf(guest, backup);
        const sent = reconcile(guest, backup, union);
        if (round > 0) divergent += sent;
        expect(differingPages(guest.port, backup.port), `round ${round}`).toEqual([]);
        for (const one of [guest, backup]) one.beginWithin(untilQuiet, requests);
        for (const one of [guest, backup]) expect(one.awaitStopped().reason).toBe(stopReason.idle);
        for (const one of [guest, backup]) {
          expect(answered(one).sort(), `${one.name} in round ${round}`).toEqual([...askers].sort());
          one.port.drop(one.held.head);
        }
      }
      expect(divergent).toBeGreaterThan(0);
    });
  });
});

function unionOf(leader: PortGuest, backup: PortGuest): Uint32Array {
  leader.port.collect();
  backup.port.collect();
  return leader.port.dirtyBitmap.map((word, index) => word | (backup.port.dirtyBitmap[index] ?? 0));
}
