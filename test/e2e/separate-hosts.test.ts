/** A VM whose replicas are on three hosts: namespaces with a link of 1 Gb/s each, and clients outside of them. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fabric } from '../../native/fabric.ts';
import { SeparateHosts } from '../framework/consensus/separate-hosts.ts';
import { guestAddress, HostedVm } from '../framework/hosted-vm.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { framesServed, leaderOf, replicaOf } from '../framework/test-vm.ts';

const connections = '4';
const hostNumbers = [0, 1, 2] as const;
const whyImpossible =
  NetworkNamespace.whyImpossible() ?? (fabric() === undefined ? 'libfabric-dev is not installed' : undefined);

describe.skipIf(whyImpossible !== undefined)(`a VM on three hosts (${whyImpossible ?? 'namespaces'})`, () => {
  let hosts: SeparateHosts;
  let vm: HostedVm;

  const prepare = async () => {
    hosts = await SeparateHosts.create(3, true);
    vm = await HostedVm.prepare('web1', hosts);
  };
  const remove = async () => {
    await vm.remove();
    await hosts.remove();
  };

  const comeUp = async () => {
    for (const host of hostNumbers) vm.start(host);
    return vm.until(2, ({ protection }) => protection === 'PROTECTED');
  };

  /** The VM is PROTECTED and asked by clients; with the number of its leader's host, and of the other executor's. */
  const serving = async () => {
    const { port, leader: first } = await vm.until(2, ({ protection }) => protection === 'PROTECTED');
    const served = framesServed(await vm.until(2, ({ leader }) => leader === first));
    const words = [guestAddress, String(port), connections];
    const load = await LoadProcess.start<LoadReport>(hosts.outside, 'memcached-load.js', words);
    const before = await vm.until(2, (status) => framesServed(status) > served + 1000);
    const leader = before.leader ?? '';
    const host = vm.hostOf(leader);
    return { load, before, leader, host, other: host === 0 ? 1 : 0 };
  };

  /** Another replica than `leader` serves, and has served for a while. */
  const servedByAnother = async (host: number, leader: string) => {
    const after = await vm.until(host, (status) => status.leader !== null && status.leader !== leader);
    const served = framesServed(after);
    await vm.until(host, (status) => status.leader !== null && framesServed(status) > served + 1000);
    return after;
  };

  /** No client has seen anything, and the guests that execute together now are equal under load. */
  const expectUnharmed = async (load: LoadProcess<LoadReport>, what: string) => {
    const served = framesServed(await vm.until(2, ({ leader }) => leader !== null));
    await vm.until(2, (status) => status.leader !== null && framesServed(status) > served + 1000);
    const report = await load.stop();
    const { longestReplyMs, medianReplyMs, operations } = report;
    const { replicas, lastFailover } = await vm.until(2, ({ replicasUp }) => replicasUp === 3);
    const gapMs = lastFailover?.gapMs;
    console.log(
      `${what}: gap ${gapMs ?? '?'} ms, longest reply ${longestReplyMs.toFixed(0)} ms, median ${medianReplyMs.toFixed(1)} ms, ${operations} operations`,
    );
    expect(report.errors).toEqual([]);
    expect(report.wrongValues).toEqual([]);
    expect(replicas.map(({ status }) => status?.mismatches)).toEqual([0, 0, 0]);
  };

  describe('that serves clients', () => {
    beforeAll(async () => {
      await prepare();
      await comeUp();
    });

    afterAll(remove);

    it('serves on when the leader’s host is cut off, and that one becomes a backup again by itself', async () => {
      const { load, before, leader, host, other } = await serving();
      await hosts.unplug(host);
      const after = await servedByAnother(other, leader);
      expect(after.term).toBeGreaterThan(before.term);

      // What cannot be asked is unknown, on either side of the cut.
      const outside = await vm.until(
        other,
        (status) => status.leader !== null && replicaOf(status, leader).status === undefined,
      );
      expect(outside.protection).toBe('DEGRADED');
      expect(replicaOf(outside, leader)).toMatchObject({ agentRuns: null, host: hosts.address(host) });
      const inside = await vm.status(host);
      expect(inside).toMatchObject({ protection: 'NO-QUORUM', leader: null, replicasUp: 1 });
      const refused = await vm.command(other, 'stop', vm.name);
      expect(refused).toMatchObject({ exitCode: 1 });
      expect(refused.stderr).toContain(`${leader} (${hosts.address(host)}) do not answer`);

      await hosts.plugInAgain(host);
      const again = await vm.until(other, ({ protection }) => protection === 'PROTECTED');
      expect(again.leader).toBe(after.leader);
      expect(replicaOf(again, leader).status).toMatchObject({ role: 'backup', state: 'running' });
      await expectUnharmed(load, `cut off ${leader}`);
      // Its process was never started again: it came back by itself.
      expect(replicaOf(again, leader).status?.agentPid).toBe(leaderOf(before).status?.agentPid);
    });

    it('serves on when a backup’s host is cut off for longer than sessions last, and takes it back', async () => {
      const { load, before, leader, other } = await serving();
      await hosts.unplug(other);
      const without = await vm.until(2, ({ protection }) => protection === 'DEGRADED');
      // What was on its way to that host must not hold up what goes to the other one.
      await vm.until(
        2,
        (status) => status.leader === leader && framesServed(status) > framesServed(without) + 3000,
      );
      await hosts.plugInAgain(other);
      const again = await vm.until(2, ({ protection }) => protection === 'PROTECTED');
      expect(again).toMatchObject({ leader, term: before.term });
      await expectUnharmed(load, `cut off the backup of ${leader}`);
    });

    it('serves on when the leader’s host dies, and is PROTECTED again once its agent is started', async () => {
      const { load, before, leader, host, other } = await serving();
      await vm.killHost(leaderOf(before));
      const after = await servedByAnother(other, leader);
      vm.start(host);
      const again = await vm.until(host, ({ protection }) => protection === 'PROTECTED');
      expect(again.leader).toBe(after.leader);
      await expectUnharmed(load, `killed ${leader}`);
      const events = await vm.events(2, after.leader ?? '');
      expect(events.map(({ name }) => name)).toContain('failover');
    });

    it('serves on when nobody hears the leader’s host, and the network learns where the guest is now', async () => {
      const { load, leader, host, other } = await serving();
      expect(await hosts.portOf(vm.mac())).toBe(host);
      await hosts.cut(host, other);
      await hosts.cut(host, 2);
      await servedByAnother(other, leader);
      expect(await hosts.portOf(vm.mac())).toBe(other);
      await hosts.mend(host, other);
      await hosts.mend(host, 2);
      await vm.until(other, ({ protection }) => protection === 'PROTECTED');
      expect(await hosts.portOf(vm.mac())).toBe(other);
      await expectUnharmed(load, `unheard ${leader}`);
    });

    it('knows one of its hosts no more that has lost its state', async () => {
      // One that has lost its state must not come back as if it had promised nothing.
      vm.agent(2).kill('SIGTERM');
      expect(await vm.agent(2).exited).toBe(0);
      expect(existsSync(join(vm.root(2), 'run/web1/gamma'))).toBe(false);
      rmSync(join(vm.root(2), 'lib/web1/gamma'), { recursive: true });
      const stranger = vm.start(2);
      await stranger.until('Replica gamma has not the state that replica alpha knows it by');
      expect((await vm.status(0)).protection).toBe('DEGRADED');
    });
  });

  describe('each time anew', () => {
    beforeEach(prepare);

    afterEach(remove);

    it('is handed over and ended from any of its hosts', async () => {
      const stateDir = join(vm.root(2), 'elsewhere');
      await vm.write(['durability: disk'], stateDir);
      const before = await comeUp();
      expect(readdirSync(stateDir)).toContain('log');
      const handed = await vm.command(2, 'failover', vm.name, '-o', 'json');
      expect(handed.exitCode).toBe(0);
      const after = await vm.until(1, ({ protection }) => protection === 'PROTECTED');
      expect(after.leader).not.toBe(before.leader);
      const logs = await vm.command(2, 'logs', vm.name, '--replica', 'alpha');
      expect(logs.stderr).toContain(`runs on another host (${hosts.address(0)})`);
      const drill = await vm.command(2, 'drill', vm.name, '--kill', 'leader');
      expect(drill.stderr).toContain('run the drill there');

      expect((await vm.command(1, 'stop', vm.name)).stderr).not.toContain('gaia-vm:');
      expect(await Promise.all(hostNumbers.map((host) => vm.agent(host).exited))).toEqual([0, 0, 0]);
      for (const host of hostNumbers) {
        expect(existsSync(join(vm.root(host), 'lib/web1'))).toBe(false);
        expect(existsSync(join(vm.root(host), 'run/web1'))).toBe(false);
        // Its tap has gone, the bridge stays; so does a folder that an operator named, emptied.
        const links = await hosts.host(host).run('ip', ['-oneline', 'link']);
        expect(links).toContain(`${hosts.bridge}:`);
        expect(links).not.toMatch(/^\d+: gaia/m);
      }
      expect(readdirSync(stateDir)).toEqual([]);
    });

    it('does not begin where one host has another file, a bridge is missing, or a replica is elsewhere', async () => {
      const stopped = async (host: number, ...words: string[]) => {
        const agent = vm.start(host, ...words);
        return { code: await agent.exited, said: agent.said };
      };
      await vm.write(['memory: 512M']);
      const first = vm.start(0);
      await first.until('runs replica alpha');
      await vm.write(['memory: 300M']);
      expect(await stopped(1)).toMatchObject({
        code: 1,
        said: expect.stringContaining(
          'The file of replica beta says memory 300M, that of replica alpha 512M',
        ) as string,
      });
      await vm.write(['colour: red']);
      expect(await stopped(1)).toMatchObject({
        code: 2,
        said: expect.stringContaining('unknown key "colour"') as string,
      });
      await vm.write(['memory: 512M']);
      expect((await stopped(1, '--replica', 'gamma')).said).toContain('gamma has the address 10.77.0.3');
      await hosts.host(1).run('ip', ['link', 'set', hosts.bridge, 'name', 'br1']);
      expect((await stopped(1)).said).toContain('This host has no bridge "br0"');
      first.kill('SIGTERM');
      expect(await first.exited).toBe(0);
      await vm.write(['memory: 300M']);
      expect((await stopped(0)).said).toContain('was made with memory 512M, and now it would be 300M');
    });

    it('comes up in whatever order its agents are started, also when one is started again meanwhile', async () => {
      // Its cable is out as it starts: it knows its addresses none the less.
      await hosts.unplug(1);
      const beta = vm.start(1);
      await beta.until('waits for alpha');
      await hosts.plugInAgain(1);
      beta.kill('SIGTERM');
      expect(await beta.exited).toBe(0);
      const first = vm.start(0);
      await first.until('runs replica alpha');
      vm.start(1);
      await vm.until(0, (status) => replicaOf(status, 'beta').status !== undefined);
      first.kill('SIGKILL');
      await first.exited;
      vm.start(2);
      vm.start(0);
      await vm.until(2, ({ protection }) => protection === 'PROTECTED');
    });
  });
});
