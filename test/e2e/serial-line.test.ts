/** What a protected guest says on its serial line is an output like any frame: only who serves lets it out. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../images/index.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const image = 'memcached';
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`the serial line (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it.each(['lockstep', 'vsmr'])(
    'of a backup lets nothing out, and yet the backup knows that its guest is ready (%s)',
    async (mode) => {
      const { readyMarker } = await findImage(image);
      const vm = await TestVm.prepare(`serial-${mode}`, namespace);
      try {
        const before = await vm.start('--image', image, '--mode', mode);
        const leader = leaderOf(before);
        const backup = before.replicas.find(({ status }) => status?.role === 'backup');
        expect(backup).toBeDefined();
        expect(await vm.serial(leader.name)).toContain(readyMarker);
        expect(await vm.serial(backup?.name ?? '')).toBe('');
        await vm.until(({ replicas }) =>
          replicas.some(({ name, status }) => name === backup?.name && status?.guestReady === true),
        );
        signalReplica(leader, 'SIGKILL');
        const after = await vm.until(({ leader: now }) => now !== null && now !== before.leader);
        expect(leaderOf(after).status?.guestReady).toBe(true);
        expect(await vm.serial(backup?.name ?? '')).not.toContain(readyMarker);
      } finally {
        await vm.remove();
      }
    },
  );
});
