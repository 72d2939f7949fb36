/**
 * A scan of all memory, page by page, holds the dirty bitmaps to their promise: whatever changes a page, the vCPUs, a
 * device or QEMU itself, the page is in the next bitmap. Every migratable block of both machines, under TCG.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findImage, type Image } from '../../../images/index.ts';
import { native } from '../../../native/binding.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { arpRequest } from '../../framework/arp-frame.ts';
import { DirtyWatch } from '../../framework/guest-memory.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const bootRoundNs = 20_000_000;
const bootRoundsMax = 3000;
/** Scans would cost more than the boot. */
const bootRoundsPerScan = 2;

const kinds = [
  { machine: 'microvm', vcpus: 1, lockstep: true },
  { machine: 'microvm', vcpus: 2, lockstep: false },
  { machine: 'pc', vcpus: 1, lockstep: true },
  { machine: 'pc', vcpus: 2, lockstep: false },
] as const satisfies readonly { machine: Machine; vcpus: number; lockstep: boolean }[];

describe.each(kinds)(
  'on a $machine with $vcpus vCPUs, lockstep $lockstep',
  ({ machine, vcpus, lockstep }) => {
    describeInLab('a page that changed is in the bitmap', (lab) => {
      let image: Image;
      let guest: PortGuest;
      let watch: DirtyWatch;

      beforeAll(async () => {
        image = await findImage('memcached');
        // Its contents are read when the kernel looks for partitions.
        const disk = join(lab.folder, 'scanned.disk');
        writeFileSync(disk, Buffer.alloc(1 << 20, 0x5a));
        const profile = { machine, vcpus, lockstep, disk, hostTscKhz: native().tscKhz() };
        guest = lab.startImage('scanned', image, profile);
      });

      /** Runs `work` and checks what it changed: how many pages. */
      function changedBy(work: () => void): number {
        const before = watch.changedPages;
        work();
        watch.collect();
        expect(watch.check()).toEqual([]);
        return watch.changedPages - before;
      }

      it('through a whole boot, in every block', () => {
        watch = new DirtyWatch(guest.port);
        for (let round = 1; !guest.serial.includes(image.readyMarker ?? ''); round++) {
          expect(round, guest.serial).toBeLessThan(bootRoundsMax);
          guest.runFor(bootRoundNs);
          watch.collect();
          if (round % bootRoundsPerScan === 0) expect(watch.check(), `round ${round}`).toEqual([]);
        }
        expect(watch.check()).toEqual([]);
        expect(watch.changedPages).toBeGreaterThan(10_000);
        // QEMU itself writes the others when the firmware first asks for them.
        const written = {
          microvm: ['ram0', 'pc.bios'],
          pc: ['ram0', '/rom@etc/acpi/tables', '/rom@etc/acpi/rsdp'],
        };
        expect([...watch.changedBlocks]).toEqual(expect.arrayContaining(written[machine]));
      });

      it('when only the network card wrote it, while the vCPUs stood', () => {
        let changed = 0;
        for (let burst = 0; burst < 20; burst++) {
          // A frame for somebody else: the kernel drops it, and gives the buffer back.
          const frames = Array.from({ length: 30 }, (_, number) =>
            arpRequest('10.71.0.99', `10.71.0.${number + 10}`),
          );
          const { virtualNs } = guest;
          changed += changedBy(() => {
            guest.begin(1, frames);
            expect(guest.awaitStopped().deliverTail).toBe(guest.port.deliver.head);
          });
          if (lockstep) expect(guest.virtualNs).toBe(virtualNs);
          changedBy(() => guest.runFor(bootRoundNs));
        }
        expect(changed).toBeGreaterThan(20);
      });

      it('when the vCPUs and the card wrote by turns', () => {
        let changed = 0;
        for (let round = 0; round < 50; round++) {
          const frames = Array.from({ length: round }, () =>
            arpRequest(guestAddress, `10.71.0.${round + 10}`),
          );
          changed += changedBy(() => guest.runFor(1_000_000, frames));
        }
        expect(changed).toBeGreaterThan(50);
        expect(guest.takeOutput().length).toBeGreaterThan(0);
        guest.port.drop(guest.held.head);
      });

      it('when the device state of an earlier moment was loaded, and when the guest went on from it', () => {
        for (let times = 0; times < 10; times++) {
          guest.pause();
          changedBy(() => {
            const { bytes, checksum } = guest.port.save();
            guest.port.load(bytes, checksum);
          });
          changedBy(() => guest.runFor(bootRoundNs, [arpRequest(guestAddress, '10.71.0.77')]));
        }
      });
    });
  },
);
