/** A leader that freezes and comes back does no harm, and becomes a backup again by itself. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { framesServed, leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const connections = 4;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a leader freezes (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it('another one serves, no client sees an error or a wrong value, and the VM is PROTECTED again once it is back', async () => {
    const vm = await TestVm.prepare('frozen', namespace);
    try {
      const before = await vm.start();
      const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
        before.address,
        String(before.port),
        String(connections),
      ]);
      signalReplica(leaderOf(before), 'SIGSTOP');
      const without = await vm.until((status) => status.leader !== null && status.leader !== before.leader);
      expect(without.protection).toBe('DEGRADED');
      // The new leader serves for a while before the old one wakes and believes that it still leads.
      await vm.until((status) => framesServed(status) > framesServed(without) + 2000);
      signalReplica(leaderOf(before), 'SIGCONT');
      const after = await vm.until((status) => status.protection === 'PROTECTED');
      expect(after.leader).not.toBe(before.leader);
      const report = await load.stop();
      console.log(
        `frozen leader: longest reply ${report.longestReplyMs.toFixed(0)} ms of ${report.operations} operations`,
      );
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(leaderOf(after).status?.mismatches).toBe(0);
    } finally {
      await vm.remove();
    }
  });
});
