/** A whole VM whose agents share no memory: consensus, state transfer and failover travel by puts over TCP. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { addonFile } from '../../native/binding.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { framesServed, leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const connections = 4;
const missing = existsSync(join(dirname(addonFile()), 'gaia_fabric.node'))
  ? undefined
  : 'the fabric addon was not built: libfabric-dev is not installed';
const whyImpossible = NetworkNamespace.whyImpossible() ?? missing;

describe.skipIf(whyImpossible !== undefined)(`a VM over a fabric (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it('comes up PROTECTED, and no client sees its leader killed', async () => {
    const vm = await TestVm.prepare('fabric', namespace);
    try {
      const started = await vm.start('--image', 'memcached', '--transport', 'fabric');
      expect(started.protection).toBe('PROTECTED');
      const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
        started.address,
        String(started.port),
        String(connections),
      ]);
      const before = await vm.until(
        (status) => status.protection === 'PROTECTED' && framesServed(status) > 1000,
      );
      signalReplica(leaderOf(before), 'SIGKILL');
      const after = await vm.until((status) => status.leader !== null && status.leader !== before.leader);
      await vm.until((status) => framesServed(status) > framesServed(after) + 1000);
      const report = await load.stop();
      console.log(
        `fabric: killed ${before.leader ?? '?'}, ${after.leader ?? '?'} served; longest reply ` +
          `${report.longestReplyMs.toFixed(0)} ms, median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations`,
      );
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(after.term).toBeGreaterThan(before.term);
      // The killed replica is started again and takes the guest's state over the network.
      const again = await vm.until((status) => status.protection === 'PROTECTED');
      expect(again.leader).toBe(after.leader);
    } finally {
      await vm.remove();
    }
  });
});
