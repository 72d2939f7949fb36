/**
 * How soon a leader that has gone silent is replaced, and that one which is only slow is not: the same times do
 * for both, since patience follows what is heard.
 */
import { availableParallelism } from 'node:os';
import { setTimeout as pass } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

/** How long the processors are kept busy: what is waited for is that nothing happens. */
const busySeconds = 60;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a change of leaders (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it('does not come about for nothing while all processors are busy', async () => {
    const vm = await TestVm.prepare('busy', namespace);
    const burners = [];
    try {
      const before = await vm.start();
      const { term } = leaderOf(before).status ?? { term: 0 };
      for (let one = 0; one < availableParallelism(); one++)
        burners.push(execa(process.execPath, ['-e', 'for (;;);'], { reject: false }));
      await pass(busySeconds * 1000);
      const after = await vm.until(({ leader }) => leader !== null);
      expect(after.leader).toBe(before.leader);
      expect(leaderOf(after).status?.term).toBe(term);
    } finally {
      for (const burner of burners) burner.kill('SIGKILL');
      await vm.remove();
    }
  });

  it('follows the silence of a frozen leader', async () => {
    const vm = await TestVm.prepare('silent', namespace);
    try {
      const before = await vm.start();
      const old = leaderOf(before);
      const stoppedMs = Date.now();
      signalReplica(old, 'SIGSTOP');
      const after = await vm.until((status) => status.leader !== null && status.leader !== before.leader);
      signalReplica(old, 'SIGCONT');
      const tookMs = Date.parse(leaderOf(after).status?.failover?.time ?? '') - stoppedMs;
      console.log(`frozen leader: another one served after ${tookMs.toFixed(0)} ms`);
      // Under 100 ms on an idle machine; how loaded this one is nobody knows.
      expect(tookMs).toBeGreaterThan(0);
      expect(tookMs).toBeLessThan(5_000);
    } finally {
      await vm.remove();
    }
  });
});
