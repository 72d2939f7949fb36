/** Guests that run freely outlive their leaders: two that are made equal after each round, and one that is copied. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VmStatus } from '../../vmm/index.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { hasReturned, leaderOf, signalReplica, TestVm, verified } from '../framework/test-vm.ts';

const connections = 8;
const kills = process.env['GAIA_SOAK'] === undefined ? 2 : 20;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`free-running guests (${whyImpossible ?? 'real'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  /** Verifying clients across `count` leaders, each killed once so many of their frames have been answered. */
  async function surviveKills(started: VmStatus, vm: TestVm, count: number): Promise<VmStatus> {
    const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
      started.address,
      String(started.port),
      String(connections),
    ]);
    const served = (rounds: number) => (now: VmStatus) =>
      now.protection === 'PROTECTED' && verified(now) > rounds;
    let status = started;
    for (let kill = 1; kill <= count; kill++) {
      const before = await vm.until(served(verified(status) + 50));
      const { name } = leaderOf(before);
      signalReplica(leaderOf(before), 'SIGKILL');
      status = await vm.until((now) => hasReturned(before, now, name, 'host'));
      expect(status.leader).not.toBe(name);
    }
    const after = await vm.until(served(verified(status) + 50));
    const report = await load.stop();
    const { exchange } = leaderOf(after).status ?? {};
    console.log(
      `${after.mode}, ${after.vcpus} vCPU: longest reply ${report.longestReplyMs.toFixed(0)} ms, ` +
        `median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations; ${JSON.stringify(exchange)}`,
    );
    expect(report.errors).toEqual([]);
    expect(report.wrongValues).toEqual([]);
    expect(report.operations).toBeGreaterThan(0);
    return after;
  }

  it('vsmr: memories are equal in all their pages after every round, leaders die, no client notices', async () => {
    const vm = await TestVm.prepare('vsmr', namespace);
    try {
      const started = await vm.start('--mode', 'vsmr', '--scan-memory');
      expect(started).toMatchObject({ protection: 'PROTECTED', mode: 'vsmr' });
      const after = await surviveKills(started, vm, kills);
      for (const { status } of after.replicas) expect(status?.mismatches).toBe(0);
      // Else nothing had to be made equal.
      expect(leaderOf(after).status?.divergentPages).toBeGreaterThan(0);
    } finally {
      await vm.remove();
    }
  });

  it.each([
    { mode: 'vsmr', vcpus: 2, transport: 'fabric' },
    { mode: 'checkpoint', vcpus: 1, transport: 'shm' },
  ])(
    '$mode with $vcpus vCPUs over $transport: leaders hand over and die, no client notices',
    async (given) => {
      const { mode, vcpus, transport } = given;
      const vm = await TestVm.prepare('free', namespace);
      try {
        const started = await vm.start('--mode', mode, '--vcpus', String(vcpus), '--transport', transport);
        expect(started).toMatchObject({ protection: 'PROTECTED', mode, vcpus });
        expect(await vm.command('failover', vm.name)).toMatchObject({ exitCode: 0 });
        const handed = await vm.until(
          (status) => status.leader === 'beta' && status.protection === 'PROTECTED',
        );
        const after = await surviveKills(handed, vm, kills);
        for (const { status } of after.replicas) expect(status?.mismatches).toBe(0);
      } finally {
        await vm.remove();
      }
    },
  );
});
