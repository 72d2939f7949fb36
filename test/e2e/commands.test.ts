/** The commands of an operator's day, on one real VM: each does what it says and ends with the code it promises. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DrillReport, VmStatus } from '../../vmm/index.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, signalReplica, TestVm, verified } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`an operator's day (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;
  let started: VmStatus;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('day', namespace);
    started = await vm.start();
  });

  afterAll(async () => {
    await vm.remove();
    await namespace.remove();
  });

  it('failover hands over there and back, both go on executing, and no client notices', async () => {
    const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
      started.address,
      String(started.port),
      '4',
    ]);
    for (const to of ['beta', 'alpha']) {
      const { exitCode, stdout } = await vm.command('failover', vm.name, '--to', to, '-o', 'json');
      expect(exitCode).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ schemaVersion: 1, failover: { to } });
      const after = await vm.until((status) => status.protection === 'PROTECTED');
      expect(after.leader).toBe(to);
    }
    // Comparisons go on, and find both guests equal.
    const all = await vm.until(({ replicasUp }) => replicasUp === 3);
    const compared = all.replicas.map(({ status }) => status?.verifications ?? 0);
    await vm.until((status) => verified(status) > Math.max(...compared) + 2);
    const report = await load.stop();
    console.log(`two handovers: longest reply ${report.longestReplyMs.toFixed(0)} ms`);
    expect([report.errors, report.wrongValues]).toEqual([[], []]);
    const status = await vm.until(({ leader }) => leader !== null);
    expect(leaderOf(status).status?.mismatches).toBe(0);
    expect((await vm.events('beta')).filter(({ name }) => name === 'state-loaded').length).toBe(1);
  });

  it('failover to who leads already, to who cannot, and to nobody known, is refused by name', async () => {
    expect(await vm.command('failover', vm.name, '--to', 'alpha')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/alpha leads VM day already/) as string,
    });
    expect(await vm.command('failover', vm.name, '--to', 'gamma')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/gamma runs no guest/) as string,
    });
    expect(await vm.command('failover', vm.name, '--to', 'delta')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/no replica "delta"/) as string,
    });
  });

  it('drill kills the leader for real, and its own clients lose nothing', async () => {
    const before = await vm.until(({ protection }) => protection === 'PROTECTED');
    const { exitCode, stdout } = await vm.command('drill', vm.name, '--kill', 'leader', '-o', 'json');
    const { drill } = JSON.parse(stdout) as { drill: DrillReport };
    console.log(`drill: gap ${drill.clients.gapMs.toFixed(0)} ms, unprotected ${drill.unprotectedMs} ms`);
    expect(exitCode).toBe(0);
    expect(drill.killed).toBe(before.leader);
    expect(drill.leaderAfter).not.toBe(before.leader);
    expect(drill.clients).toMatchObject({ brokenConnections: 0, lostRequests: 0, wrongAnswers: 0 });
    expect(drill.clients.requests).toBeGreaterThan(100);
    expect((await vm.status()).protection).toBe('PROTECTED');
  });

  it('wait ends at once with what holds, and with 5 when it does not come about in time', async () => {
    expect((await vm.command('wait', vm.name)).exitCode).toBe(0);
    const late = await vm.command('wait', vm.name, '--for', 'degraded', '--timeout', '0.2');
    expect(late.exitCode).toBe(5);
    expect(late.stderr).toMatch(/VM day is PROTECTED after 0.2 s .*, not yet degraded/);
  });

  it('logs shows what agents and the guest wrote, of one replica or all', async () => {
    const { stdout } = await vm.command('logs', vm.name);
    expect(stdout).toMatch(/peer-gone/);
    const one = await vm.command('logs', vm.name, '--replica', 'gamma', '-o', 'json', '-n', '3');
    const { lines } = JSON.parse(one.stdout) as { lines: { replica: string; text: string }[] };
    expect(new Set(lines.map(({ replica }) => replica))).toEqual(new Set(['gamma']));
    expect(lines.length).toBeLessThanOrEqual(3);
    expect(await vm.command('logs', vm.name, '--replica', 'delta')).toMatchObject({ exitCode: 1 });
  });

  it('after all of it has ended, start gives up what its logs hold only when told so, and boots it afresh', async () => {
    expect(await vm.command('start', vm.name)).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/VM day exists already/) as string,
    });
    // Frozen first, so that none of them starts another again meanwhile.
    const { replicas } = await vm.until(({ replicasUp }) => replicasUp === 3);
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const)
      for (const replica of replicas) signalReplica(replica, signal);
    const ended = await vm.until((status) => status.replicas.every((replica) => !replica.agentRuns));
    expect(ended.protection).toBe('NO-QUORUM');
    expect(ended.command).toMatch(/start day --discard-log/);
    const refused = await vm.command('start', vm.name);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(
      /The logs of VM day hold .* \(alpha: records 1 to \d+, the last of term \d+; beta: /,
    );
    expect(refused.stderr).toMatch(/start day --discard-log" gives them up and boots it afresh/);
    const again = await vm.command('start', vm.name, '--discard-log');
    expect(again.stderr).toMatch(/what was in its guest's memory is lost/);
    expect(again.exitCode).toBe(0);
    expect(again.stdout).toMatch(/PROTECTED/);
  });
});
