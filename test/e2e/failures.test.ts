/**
 * Each single failure, by a real signal to real processes, under verifying clients: who serves after it, what
 * `status` and `events` say, and that the VM is PROTECTED again without a command.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { VmStatus } from '../../vmm/index.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import {
  backupOf,
  framesServed,
  hasReturned,
  leaderOf,
  type Part,
  replicaOf,
  signalReplica,
  TestVm,
} from '../framework/test-vm.ts';

const connections = 4;
/** Puts more into memcached than fits into the first segments of a log. */
const bulk = `
  const [host, port] = process.argv.slice(1);
  const socket = require('node:net').connect(Number(port), host);
  const value = 'v'.repeat(64 << 10);
  let left = 640;
  const next = () => {
    if (left-- === 0) return socket.end();
    socket.write('set bulk 0 0 ' + value.length + '\\r\\n' + value + '\\r\\n');
  };
  socket.on('data', next);
  next();
`;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`one failure (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;

  const prepare = async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('failing', namespace);
  };

  const remove = async () => {
    await vm.remove();
    await namespace.remove();
  };

  async function load(status: VmStatus): Promise<LoadProcess<LoadReport>> {
    return LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
      status.address,
      String(status.port),
      String(connections),
    ]);
  }

  function judge(what: string, report: LoadReport): void {
    console.log(
      `${what}: longest reply ${report.longestReplyMs.toFixed(0)} ms, median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations`,
    );
    expect(report.errors).toEqual([]);
    expect(report.wrongValues).toEqual([]);
    expect(report.operations).toBeGreaterThan(0);
  }

  describe('after another, of the same VM', () => {
    beforeAll(async () => {
      await prepare();
      await vm.start();
    });

    afterAll(remove);

    /** What a replica has told since this was called. */
    function listen(): (replica: string) => Promise<string[]> {
      const since = new Date().toISOString();
      return async (replica) =>
        (await vm.events(replica)).filter(({ time }) => time >= since).map(({ name }) => name);
    }

    /** Signals a part of a replica under load, and returns once the VM is PROTECTED with a new process in its place. */
    async function survive(before: VmStatus, name: string, part: Part): Promise<VmStatus> {
      const clients = await load(before);
      const began = performance.now();
      signalReplica(replicaOf(before, name), 'SIGKILL', part);
      const after = await vm.until((status) => hasReturned(before, status, name, part));
      const tookMs = performance.now() - began;
      // What serves now does so for a while.
      await vm.until((status) => framesServed(status) > framesServed(after) + 500);
      judge(`${part} of ${name}, PROTECTED again after ${tookMs.toFixed(0)} ms`, await clients.stop());
      return after;
    }

    const unhurt = () => vm.until(({ protection }) => protection === 'PROTECTED');

    it.each<Part>(['host', 'agent', 'qemu'])(
      'SIGKILL to the %s of the leader: the backup serves, nobody notices, PROTECTED by itself',
      async (part) => {
        const before = await unhurt();
        const told = listen();
        const [leader, backup] = [leaderOf(before).name, backupOf(before).name];
        const after = await survive(before, leader, part);
        expect(after.leader).toBe(backup);
        expect(after.term).toBeGreaterThan(before.term);
        expect(await told(backup)).toEqual(expect.arrayContaining(['serving', 'state-sent', 'protected']));
        expect(after.lastFailover).toMatchObject({ from: leader, to: backup });
        if (part === 'qemu') expect(await told(leader)).toContain('qemu-ended');
        else expect(await told(backup)).toEqual(expect.arrayContaining(['peer-gone', 'restart']));
      },
    );

    it.each<Part>(['host', 'agent', 'qemu'])(
      'SIGKILL to the %s of the major backup: the leader serves on, nobody notices, PROTECTED by itself',
      async (part) => {
        const before = await unhurt();
        const told = listen();
        const [leader, backup] = [leaderOf(before).name, backupOf(before).name];
        const after = await survive(before, backup, part);
        expect([after.leader, after.term]).toEqual([leader, before.term]);
        expect(await told(leader)).toEqual(expect.arrayContaining(['degraded', 'state-sent', 'protected']));
      },
    );

    it('a QEMU of the leader that freezes: the backup serves, and the VM is PROTECTED once it goes on', async () => {
      const before = await unhurt();
      const [leader, backup] = [leaderOf(before).name, backupOf(before).name];
      const clients = await load(before);
      signalReplica(leaderOf(before), 'SIGSTOP', 'qemu');
      const without = await vm.until((status) => status.leader !== null && status.leader !== leader);
      expect(without.leader).toBe(backup);
      signalReplica(leaderOf(before), 'SIGCONT', 'qemu');
      const after = await unhurt();
      expect(after.leader).toBe(backup);
      judge(`frozen QEMU of ${leader}`, await clients.stop());
    });

    it('SIGKILL to the standby: leader and backup go on, nobody notices, PROTECTED by itself', async () => {
      const before = await unhurt();
      const told = listen();
      const after = await survive(before, 'gamma', 'host');
      expect([after.leader, after.term]).toEqual([before.leader, before.term]);
      expect(await told(before.leader ?? '')).toEqual(expect.arrayContaining(['peer-gone', 'restart']));
    });
  });

  describe('of a new VM', () => {
    beforeEach(prepare);

    afterEach(remove);

    it('three leaders are killed in a row, each by name, with protection between', async () => {
      let status = await vm.start();
      const clients = await load(status);
      for (let kill = 1; kill <= 3; kill++) {
        const before = status;
        const { name } = leaderOf(before);
        const began = performance.now();
        signalReplica(leaderOf(before), 'SIGKILL');
        status = await vm.until((now) => hasReturned(before, now, name, 'host'));
        console.log(
          `kill ${kill} of ${name}: PROTECTED again after ${(performance.now() - began).toFixed(0)} ms`,
        );
        expect(status.leader).not.toBe(name);
      }
      judge('three kills', await clients.stop());
      expect(leaderOf(status).status?.mismatches).toBe(0);
    });

    it('a majority that freezes stops the service, and its return brings it back', async () => {
      const before = await vm.start();
      const clients = await load(before);
      for (const name of ['beta', 'gamma']) signalReplica(replicaOf(before, name), 'SIGSTOP');
      const without = await vm.until((status) => status.protection === 'NO-QUORUM');
      expect(without.reason).toMatch(/1 of 3/);
      for (const name of ['beta', 'gamma']) signalReplica(replicaOf(before, name), 'SIGCONT');
      const after = await vm.until((status) => status.protection === 'PROTECTED');
      expect(leaderOf(after).status?.mismatches).toBe(0);
      judge('majority frozen', await clients.stop());
    });

    it('a standby with a full disk cannot come back, says why, and does once there is room', async () => {
      const disk = await vm.smallStateDisk('gamma', 256);
      // What must be kept then is the vote.
      const before = await vm.start('--durability', 'memory');
      await disk.fill();
      signalReplica(replicaOf(before, 'gamma'), 'SIGKILL');
      const without = await vm.until(
        (status) =>
          status.protection === 'DEGRADED' && /gamma again \(attempt [2-9]/.test(status.doing ?? ''),
      );
      expect(without.leader).toBe('alpha');
      expect(without.command).toMatch(/logs failing --replica gamma/);
      expect(await vm.log('gamma')).toMatch(/No space is left for .*gamma/);
      await disk.free();
      await vm.until((status) => hasReturned(before, status, 'gamma', 'host'));
    });

    it('a standby whose log finds no space any more holds up nobody, and is level again once there is room', async () => {
      const disk = await vm.smallStateDisk('gamma', 64 << 10);
      const before = await vm.start();
      await disk.fill();
      const clients = await load(before);
      const write = namespace.run(process.execPath, ['-e', bulk, before.address, String(before.port)]);
      const full = await vm.until(({ reason }) => reason === 'gamma has no space for its log');
      expect(full).toMatchObject({
        protection: 'DEGRADED',
        leader: before.leader,
        doing: 'gamma waits for space on the disk of its log',
      });
      await write;
      await disk.free();
      await vm.untilEvents('gamma', (events) => events.some(({ name }) => name === 'disk-room'));
      const after = await vm.until(({ protection }) => protection === 'PROTECTED');
      expect([after.leader, after.term]).toEqual([before.leader, before.term]);
      judge('full disk of gamma', await clients.stop());
    });
  });
});
