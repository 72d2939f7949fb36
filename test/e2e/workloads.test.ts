/** Services under load outlive their leaders again and again: no client sees an error, a reset or a wrong value. */
import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';
import { workloads } from '../framework/workload.ts';

const kills = process.env['GAIA_SOAK'] === undefined ? 3 : 20;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`leaders die (${whyImpossible ?? 'real guests'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it.each(workloads)(`$name survives ${kills} kills`, { timeout: 100_000 * kills }, async (workload) => {
    const vm = await TestVm.prepare('workload', namespace);
    try {
      const started = await vm.start('--replicas', '3', '--image', workload.image);
      const load = await workload.start(namespace, started.address, started.port ?? 0);
      try {
        for (let kill = 1; kill <= kills; kill++) {
          await new Promise((resolve) => setTimeout(resolve, randomInt(200, 3000))); // The random moment.
          const before = await vm.until((status) => status.protection === 'PROTECTED');
          signalReplica(leaderOf(before), 'SIGKILL');
          const killed = performance.now();
          await vm.until(
            (status) =>
              status.leader !== null &&
              status.leader !== before.leader &&
              status.term > before.term &&
              (kill === kills || status.protection === 'PROTECTED'),
          );
          console.log(
            `${workload.name}: kill ${kill} of ${before.leader ?? '?'}, served on after ` +
              `${((performance.now() - killed) / 1000).toFixed(1)} s`,
          );
        }
        const outcome = await load.stop();
        console.log(`${workload.name}: ${outcome.summary}`);
        expect(outcome.faults).toEqual([]);
        const { status } = leaderOf(await vm.until(({ leader }) => leader !== null));
        expect([status?.mismatches, status?.divergentPages]).toEqual([0, 0]);
      } finally {
        load.kill();
      }
    } finally {
      await vm.remove();
    }
  });
});
