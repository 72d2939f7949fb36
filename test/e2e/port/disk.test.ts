/** A disk that takes its time or fails: no page is missing because of it, and a failed request is tried again. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { findImage, type Image } from '../../../images/index.ts';
import { native } from '../../../native/binding.ts';
import { stopReason } from '../../../vmm/io/qemu/layout.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { faultyDisk, type DiskFaults } from '../../framework/faulty-disk.ts';
import { DirtyWatch } from '../../framework/guest-memory.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const roundNs = 20_000_000;
const roundsMax = 3000;
/** Longer than a round takes of a guest that waits for its disk, since its clock runs ahead then. */
const slowUs = 200_000;
/** clock_nanosleep, by which a slow disk is slow, pread64 and preadv: on x86-64. */
const readingCalls: ReadonlySet<string> = new Set(['230', '17', '295', 'running']);
/** QEMU itself reads the first sector, to guess the disk's geometry. */
const guestsFirstRead = 2;

const kinds = [
  { machine: 'microvm', lockstep: true },
  { machine: 'microvm', lockstep: false },
  { machine: 'pc', lockstep: true },
  { machine: 'pc', lockstep: false },
] as const satisfies readonly { machine: Machine; lockstep: boolean }[];

/** Whether a thread of QEMU, whose guest stands, is still reading from the slow disk. */
function readsDisk(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).some((thread) => {
    try {
      const [call = ''] = readFileSync(`/proc/${pid}/task/${thread}/syscall`, 'utf8').split(' ');
      return readingCalls.has(call.trim());
    } catch {
      return false; // It has ended.
    }
  });
}

describe.each(kinds)('a $machine with a disk (lockstep $lockstep)', ({ machine, lockstep }) => {
  describeInLab('that its kernel reads when it boots', (lab) => {
    let image: Image;

    beforeAll(async () => {
      image = await findImage('memcached');
    });

    function start(name: string, faults: DiskFaults): PortGuest {
      const disk = join(lab.folder, `${name}.disk`);
      writeFileSync(disk, Buffer.alloc(1 << 20, 0x5a));
      const profile = { machine, lockstep, disk, hostTscKhz: native().tscKhz() };
      return lab.startImage(name, image, profile, { environment: faultyDisk(lab.folder, disk, faults) });
    }

    /** Boots to the end and returns why its rounds ended. */
    function boot(guest: PortGuest, each: () => void = () => undefined): number[] {
      const reasons: number[] = [];
      while (!guest.serial.includes(image.readyMarker ?? '')) {
        expect(reasons.length, guest.serial).toBeLessThan(roundsMax);
        reasons.push(guest.runFor(roundNs).reason);
        each();
      }
      return reasons;
    }

    it('brings no page behind the back of a bitmap, however late it answers', () => {
      const guest = start('slow', { preadUs: slowUs });
      const watch = new DirtyWatch(guest.port);
      boot(guest, () => {
        watch.collect();
        expect(watch.check()).toEqual([]);
        // What the host still reads for a guest that stands shall have arrived.
        while (readsDisk(guest.pid));
        expect(watch.check()).toEqual([]);
      });
    });

    it('that fails ends the round, and the request is tried again: the guest never knows', () => {
      const guest = start('fails', { preadFails: guestsFirstRead });
      const reasons = boot(guest);
      expect(reasons.filter((reason) => reason === stopReason.ioError)).toHaveLength(1);
      expect(guest.serial).not.toMatch(/I\/O error/);
    });

    it('that fails while the guest is being stopped does so, too', () => {
      const guest = start('late', { preadUs: slowUs, preadFails: guestsFirstRead });
      let stopped = false;
      while (!stopped) {
        guest.begin(guest.virtualNs + roundNs);
        stopped = guest.port.stop().reason === stopReason.ioError;
        stopped = guest.takeStopped()?.reason === stopReason.ioError || stopped;
      }
      expect(boot(guest)).not.toContain(stopReason.ioError);
      expect(guest.serial).not.toMatch(/I\/O error/);
    });
  });
});
