/**
 * Each single failure of guests that run freely, by a real signal under verifying clients, at whatever step of a
 * round's exchange it falls: one VM outlives them all.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VmStatus } from '../../vmm/index.ts';
import { HarmedRing } from '../framework/harmed-ring.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import {
  backupOf,
  hasReturned,
  leaderOf,
  type Part,
  replicaOf,
  signalReplica,
  TestVm,
  verified,
} from '../framework/test-vm.ts';

const connections = 4;
/** So often each failure happens. */
const turns = process.env['GAIA_SOAK'] === undefined ? 1 : 10;
const whyImpossible = NetworkNamespace.whyImpossible();

const roles = { leader: leaderOf, backup: backupOf };
type Role = keyof typeof roles;

describe.skipIf(whyImpossible !== undefined)(
  `one failure of free-running guests (${whyImpossible ?? 'real guest'})`,
  () => {
    let namespace: NetworkNamespace;
    let vm: TestVm;

    beforeAll(async () => {
      namespace = await NetworkNamespace.create();
      vm = await TestVm.prepare('free', namespace);
      await vm.start('--mode', 'vsmr');
    });

    afterAll(async () => {
      await vm.remove();
      await namespace.remove();
    });

    /** The status under which the leader has had so many more rounds answered by its backup. */
    async function served(since: VmStatus, rounds: number): Promise<VmStatus> {
      let from = since;
      return vm.until((status) => {
        // Another one may lead by now: it counts from where it began.
        if (status.leader !== null && status.leader !== from.leader) from = status;
        return status.leader === from.leader && verified(status) > verified(from) + rounds;
      });
    }

    /** Clients on the VM during `failure`, which returns how it is afterwards; they go on for a while. */
    async function survive(what: string, failure: (before: VmStatus) => Promise<VmStatus>): Promise<void> {
      const started = await vm.until(({ protection }) => protection === 'PROTECTED');
      const clients = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
        started.address,
        String(started.port),
        String(connections),
      ]);
      try {
        const before = await served(started, 30);
        const began = performance.now();
        const after = await failure(before);
        const tookMs = performance.now() - began;
        const end = await served(after, 30);
        const report = await clients.stop();
        console.log(
          `vsmr, ${what}, PROTECTED again after ${tookMs.toFixed(0)} ms: longest reply ${report.longestReplyMs.toFixed(0)} ms, ` +
            `median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations`,
        );
        expect(report.errors).toEqual([]);
        expect(report.wrongValues).toEqual([]);
        expect(report.operations).toBeGreaterThan(0);
        for (const { status } of end.replicas) expect(status?.mismatches ?? 0).toBe(0);
      } finally {
        clients.kill();
      }
    }

    describe.each(Array.from({ length: turns }, (_, turn) => turn + 1))('turn %d', () => {
      it.each<[Part, Role]>([
        ['qemu', 'leader'],
        ['agent', 'leader'],
        ['host', 'leader'],
        ['qemu', 'backup'],
        ['agent', 'backup'],
      ])('SIGKILL to the %s of the %s: nobody notices, PROTECTED by itself', async (part, role) => {
        await survive(`${part} of ${role}`, async (before) => {
          const struck = roles[role](before);
          signalReplica(struck, 'SIGKILL', part);
          const after = await vm.until((status) => hasReturned(before, status, struck.name, part));
          if (role === 'leader') expect(after.leader).not.toBe(before.leader);
          else expect([after.leader, leaderOf(after).status?.term]).toEqual([before.leader, before.term]);
          return after;
        });
      });

      it("a leader's QEMU that claims impossible input loses its guest, and nothing else", async () => {
        await survive('harmed ring of leader', async (before) => {
          const struck = leaderOf(before);
          const ring = new HarmedRing(struck.status?.qemuPid ?? 0);
          const after = await vm
            .until((status) => {
              ring.harm();
              return hasReturned(before, status, struck.name, 'qemu');
            })
            .finally(() => ring.close());
          expect(replicaOf(after, struck.name).status?.agentPid).toBe(struck.status?.agentPid);
          const lost = (await vm.events(struck.name)).filter(({ name }) => name === 'guest-lost').at(-1);
          expect(lost?.text).toMatch(/has harmed its ring of input/);
          return after;
        });
      });

      it('a leader that freezes and wakes harms nothing, and becomes the backup', async () => {
        await survive('frozen leader', async (before) => {
          signalReplica(leaderOf(before), 'SIGSTOP');
          const without = await vm.until(({ leader }) => leader !== null && leader !== before.leader);
          const delivered = (status: VmStatus) => leaderOf(status).status?.framesDelivered ?? 0;
          await vm.until((status) => status.leader !== null && delivered(status) > delivered(without) + 500);
          signalReplica(leaderOf(before), 'SIGCONT');
          const after = await vm.until((status) => status.protection === 'PROTECTED');
          expect(after.leader).not.toBe(before.leader);
          return after;
        });
      });
    });
  },
);
