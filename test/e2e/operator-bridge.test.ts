/** A VM on a bridge that its operator has: it joins, it outlives its leader there, and the bridge stays. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { framesServed, hasReturned, leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();
const network = ['--bridge', 'br0', '--address', '192.0.2.10/24', '--gateway', '192.0.2.1'];

describe.skipIf(whyImpossible !== undefined)(
  `a bridge of the operator's (${whyImpossible ?? 'real'})`,
  () => {
    let namespace: NetworkNamespace;
    let vm: TestVm;

    beforeAll(async () => {
      namespace = await NetworkNamespace.create();
      await namespace.run('ip', ['link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0']);
      // Somebody else is on it; without a live port a bridge has no carrier.
      await namespace.run('ip', ['link', 'add', 'uplink', 'type', 'veth', 'peer', 'name', 'elsewhere']);
      await namespace.run('ip', ['link', 'set', 'elsewhere', 'up']);
      await namespace.run('ip', ['link', 'set', 'uplink', 'master', 'br0', 'up']);
      await namespace.run('ip', ['address', 'add', '192.0.2.1/24', 'dev', 'br0']);
      await namespace.run('ip', ['link', 'set', 'br0', 'up']);
      vm = await TestVm.prepare('joined', namespace);
    });

    afterAll(async () => {
      await vm.remove();
      await namespace.remove();
    });

    it('is joined by the VM, whose leader dies there unnoticed, and stays when the VM is stopped', async () => {
      const started = await vm.start('--replicas', '3', ...network);
      expect(started).toMatchObject({ protection: 'PROTECTED', address: '192.0.2.10' });
      const words = [started.address, String(started.port), '4'];
      const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', words);
      const before = await vm.until((now) => now.protection === 'PROTECTED' && framesServed(now) > 500);
      const { name } = leaderOf(before);
      signalReplica(leaderOf(before), 'SIGKILL');
      const after = await vm.until((now) => hasReturned(before, now, name, 'host'));
      expect(after.leader).not.toBe(name);
      const { errors, wrongValues, operations, longestReplyMs } = await load.stop();
      console.log(`longest reply ${longestReplyMs.toFixed(0)} ms, ${operations} operations`);
      expect([errors, wrongValues]).toEqual([[], []]);

      expect((await vm.command('stop', vm.name)).exitCode).toBe(0);
      const links = await namespace.run('ip', ['-oneline', 'link']);
      expect(links).toContain(' br0:');
      expect(links).not.toMatch(/^\d+: gaia/m);
    });

    it.each([
      [['--bridge', 'br9', '--address', '192.0.2.10/24'], /no bridge "br9"/],
      [['--bridge', 'br0'], /bridge -> address/],
      [['--address', '192.0.2.10/24'], /address -> bridge/],
      [['--bridge', 'br0', '--address', '192.0.2.300/24'], /192\.0\.2\.300\/24, which is none/],
      [['--bridge', 'br0', '--address', '192.0.2.10/24', '--gateway', 'here'], /the gateway here/],
    ])('refuses %j', async (flags, message) => {
      const { exitCode, stderr } = await vm.command('start', '--name', 'other', ...flags);
      expect(exitCode).not.toBe(0);
      expect(stderr).toMatch(message);
    });
  },
);
