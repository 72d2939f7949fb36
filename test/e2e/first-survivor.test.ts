/** One guest outlives its leader: real QEMU, real guest, real clients, real SIGKILL. */
import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { framesServed, leaderOf, signalReplica, TestVm, verified } from '../framework/test-vm.ts';

const connections = 8;
/** Fresh starts, each with one kill. */
const starts = process.env['GAIA_SOAK'] === undefined ? 3 : 20;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a leader dies (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it.each(Array.from({ length: starts }, (_, start) => start + 1))(
    'SIGKILL of all its processes is seen by no memcached client, fresh start %i',
    async (start) => {
      const vm = await TestVm.prepare('survivor', namespace);
      try {
        const started = await vm.start('--replicas', '3', '--image', 'memcached');
        expect(started.protection).toBe('PROTECTED');
        const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
          started.address,
          String(started.port),
          String(connections),
        ]);
        const killAfterMs = randomInt(200, 3000);
        await new Promise((resolve) => setTimeout(resolve, killAfterMs)); // The random moment.
        const before = await vm.until((status) => status.protection === 'PROTECTED' && verified(status) > 0);
        signalReplica(leaderOf(before), 'SIGKILL');
        const after = await vm.until((status) => status.leader !== null && status.leader !== before.leader);
        await vm.until((status) => framesServed(status) > framesServed(after) + 1000);
        const report = await load.stop();
        console.log(
          `start ${start}: killed ${before.leader ?? '?'} after ${killAfterMs} ms, ${after.leader ?? '?'} served; ` +
            `longest reply ${report.longestReplyMs.toFixed(0)} ms, median ${report.medianReplyMs.toFixed(1)} ms, ` +
            `${report.operations} operations; ${leaderOf(before).status?.verifications ?? 0} comparisons of ` +
            `${leaderOf(before).status?.verifiedPages ?? 0} pages, ${leaderOf(before).status?.divergentPages ?? -1} divergent`,
        );
        expect(report.errors).toEqual([]);
        expect(report.wrongValues).toEqual([]);
        expect(report.operations).toBeGreaterThan(0);
        const compared = leaderOf(before).status;
        expect(compared?.verifications).toBeGreaterThan(0);
        expect([compared?.mismatches, compared?.divergentPages]).toEqual([0, 0]);
        expect(after.term).toBeGreaterThan(before.term);
      } finally {
        await vm.remove();
      }
    },
  );
});
