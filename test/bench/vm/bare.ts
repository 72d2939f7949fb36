/** Bare VMs: one as users run it today, or two at once, the honest limit for two executing replicas on one machine. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { BareGuest, bareGuestAddress, bareGuestTap, bareHostAddress } from '../bare-guest.ts';
import type { System } from './system.ts';

export function bareVms(name: string, count: number): System {
  return {
    name,
    describe: `${count} QEMU, machine pc, one vCPU under TCG, free-running, plain tap${count > 1 ? ', each under the same load at the same time' : ''}`,
    whyImpossible: () => undefined,
    async start(image, folder, signal) {
      const ends: (() => Promise<void>)[] = [];
      const stop = async (): Promise<void> => {
        for (const end of ends.reverse()) await end();
      };
      try {
        const targets = [];
        for (let number = 0; number < count; number++) {
          const namespace = await NetworkNamespace.create();
          ends.push(() => namespace.remove());
          await namespace.addTap(bareGuestTap, bareHostAddress);
          const guestFolder = join(folder, `bare${number}`);
          await mkdir(guestFolder, { recursive: true });
          const guest = await BareGuest.boot(image, namespace, guestFolder, signal);
          ends.push(() => guest.stop());
          targets.push({ namespace, host: bareGuestAddress, port: image.port ?? 0 });
        }
        return { targets, figures: () => Promise.resolve({}), stop };
      } catch (error) {
        await stop();
        throw error;
      }
    },
  };
}
