/** A register in a real guest stays linearizable while leaders are killed and frozen. */
import { randomInt } from 'node:crypto';
import { expect, it } from 'vitest';
import { whyNotLinearizable } from '../framework/linearizability.ts';
import { LoadProcess } from '../framework/load-process.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import type { RegisterReport } from '../framework/register-load.ts';
import { leaderOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const faults: readonly NodeJS.Signals[] = ['SIGSTOP', 'SIGKILL', 'SIGSTOP', 'SIGKILL'];
const whyImpossible = NetworkNamespace.whyImpossible();

it.skipIf(whyImpossible !== undefined)(
  `a register is linearizable across kills and freezes (${whyImpossible ?? 'redis, 6 clients'})`,
  async () => {
    const namespace = await NetworkNamespace.create();
    const vm = await TestVm.prepare('register', namespace);
    try {
      const started = await vm.start('--replicas', '3', '--image', 'redis');
      const load = await LoadProcess.start<RegisterReport>(namespace, 'register-load.js', [
        started.address,
        String(started.port),
        '6',
      ]);
      for (const signal of faults) {
        await new Promise((resolve) => setTimeout(resolve, randomInt(200, 2000))); // The random moment.
        const before = await vm.until((status) => status.protection === 'PROTECTED');
        signalReplica(leaderOf(before), signal);
        await vm.until((status) => status.leader !== null && status.leader !== before.leader);
        if (signal === 'SIGSTOP') signalReplica(leaderOf(before), 'SIGCONT');
        await vm.until((status) => status.protection === 'PROTECTED');
      }
      const { errors, histories } = await load.stop();
      expect(errors).toEqual([]);
      const registers = Object.entries(histories);
      for (const [register, recorded] of registers) {
        const history = recorded.map((operation) => {
          return { ...operation, repliedAt: operation.repliedAt ?? Infinity };
        });
        expect(whyNotLinearizable(history), register).toBeUndefined();
      }
      expect(registers.length).toBeGreaterThan(10);
      console.log(
        `${registers.reduce((sum, [, history]) => sum + history.length, 0)} operations on ` +
          `${registers.length} registers, ${faults.length} faults`,
      );
    } finally {
      await vm.remove();
      await namespace.remove();
    }
  },
);
