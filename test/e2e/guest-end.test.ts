/** A guest that powers itself off stays off; one that reboots is followed; each on all replicas alike. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findImage } from '../../images/index.ts';
import { folders } from '../../vmm/index.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, TestVm } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a guest ends itself (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;

  beforeEach(async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('ending', namespace);
  });

  afterEach(async () => {
    await vm.remove();
    await namespace.remove();
  });

  /** A guest whose first and only process is this applet of busybox. */
  async function startApplet(words: string, ...options: string[]): Promise<void> {
    const { kernel, initrd } = await findImage('memcached', folders().cache);
    const append = `rdinit=/bin/busybox -- ${words}`;
    await vm.start('--kernel', kernel ?? '', '--initrd', initrd ?? '', '--append', append, ...options);
  }

  it('powered off: the VM is OFF, nothing of it runs or is started again, and start boots it afresh', async () => {
    await startApplet('poweroff -d 8 -f');
    const off = await vm.until((status) => status.protection === 'OFF');
    expect(off.reason).toBe('the guest has powered itself off');
    expect(off.command).toMatch(/start ending/);
    const ended = await vm.until((status) => status.replicas.every((replica) => !replica.agentRuns));
    expect(ended.protection).toBe('OFF');
    for (const replica of ['alpha', 'beta'])
      expect((await vm.events(replica)).map(({ name }) => name)).toContain('guest-off');
    expect((await vm.command('wait', vm.name, '--for', 'off', '--timeout', '1')).exitCode).toBe(0);
    const again = await vm.command('start', vm.name);
    expect(again.exitCode).toBe(0);
  });

  it.each(['lockstep', 'vsmr'])(
    'rebooted in %s: both begin anew at the same record, PROTECTED',
    async (mode) => {
      await startApplet('reboot -d 5 -f', '--mode', mode);
      for (const replica of ['alpha', 'beta'])
        await vm.untilEvents(
          replica,
          (events) => events.filter(({ name }) => name === 'guest-reset').length >= 2,
        );
      const status = await vm.until((now) => now.protection === 'PROTECTED');
      expect(leaderOf(status).status?.mismatches).toBe(0);
      const resets = await Promise.all(
        ['alpha', 'beta'].map(async (replica) =>
          (await vm.events(replica))
            .filter(({ name }) => name === 'guest-reset')
            .map(({ data }) => data['index']),
        ),
      );
      // A backup may have come in after the first one.
      const [first = [], second = []] = resets;
      expect(first.filter((index) => second.includes(index)).length).toBeGreaterThanOrEqual(2);
    },
  );
});
