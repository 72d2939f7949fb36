/**
 * Disks on which an fdatasync takes long, below the real agents and their real logs: one of them holds up nothing, since
 * a majority of durable logs is enough; two of them set the pace, and nothing else.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VmStatus } from '../../vmm/index.ts';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { hasReturned, leaderOf, replicaOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const connections = 4;
const slowMs = 200;
/** More than a leader's disk may owe: see docs/durable-log.md. */
const stuckMs = 3000;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a slow disk (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;
  let disks: Awaited<ReturnType<TestVm['slowDisks']>>;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('slow', namespace);
    disks = await vm.slowDisks();
    await vm.start();
  });

  afterAll(async () => {
    await vm.remove();
    await namespace.remove();
  });

  /** What clients saw while fdatasyncs took so many ms and `during` happened. */
  async function servedWith(
    fdatasyncMs: Readonly<Record<string, number>>,
    during: (before: VmStatus) => Promise<void>,
  ): Promise<LoadReport> {
    const before = await vm.until(({ protection }) => protection === 'PROTECTED');
    await disks.set(fdatasyncMs);
    const clients = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
      before.address,
      String(before.port),
      String(connections),
    ]);
    try {
      await during(before);
      const report = await clients.stop();
      console.log(
        `fdatasync takes ${JSON.stringify(fdatasyncMs)} ms more: longest reply ${report.longestReplyMs.toFixed(0)} ms, ` +
          `median ${report.medianReplyMs.toFixed(1)} ms, ${report.operations} operations`,
      );
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      return report;
    } finally {
      clients.kill();
      await disks.set({});
    }
  }

  /** Until the guest has got so many frames more; nobody else comes to lead meanwhile. */
  const delivered = (frames: number) => async (before: VmStatus) => {
    const sofar = leaderOf(before).status?.framesDelivered ?? 0;
    const after = await vm.until(
      (now) => now.leader !== null && (leaderOf(now).status?.framesDelivered ?? 0) > sofar + frames,
    );
    expect([after.leader, after.term]).toEqual([before.leader, before.term]);
  };

  it.each(['gamma', 'beta', 'alpha'])('of %s alone is waited for by nobody, and told of', async (name) => {
    const { medianReplyMs } = await servedWith({ [name]: slowMs }, delivered(500));
    expect(medianReplyMs).toBeLessThan(slowMs / 2);
    const told = (await vm.events(name)).find((event) => event.name === 'disk-slow');
    expect(told?.text).toMatch(/^The disk of the log took \d+ ms/);
  });

  it('of two sets the pace: nobody comes to lead instead, and clients wait for it', async () => {
    const { medianReplyMs } = await servedWith({ alpha: slowMs, gamma: slowMs }, delivered(50));
    expect(medianReplyMs).toBeGreaterThan(slowMs / 2);
  });

  it('of the backup takes over from a leader that is killed', async () => {
    await servedWith({ beta: slowMs }, async (before) => {
      signalReplica(replicaOf(before, 'alpha'), 'SIGKILL');
      const after = await vm.until((status) => hasReturned(before, status, 'alpha', 'host'));
      expect(after.leader).toBe('beta');
    });
  });

  it('that finishes nothing any more costs its replica the leadership', async () => {
    await servedWith({}, async (before) => {
      await disks.set({ [leaderOf(before).name]: stuckMs });
      await vm.until(({ leader }) => leader !== null && leader !== before.leader);
      await disks.set({});
      await vm.until(({ protection }) => protection === 'PROTECTED');
    });
  });
});
