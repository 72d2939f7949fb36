/** gaia-vm, started by its real command line on three replicas. */
import type { Image } from '../../../images/index.ts';
import type { VmStatus } from '../../../vmm/index.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { leaderOf, signalReplica, TestVm } from '../../framework/test-vm.ts';
import type { RunningSystem, System, SystemFigures } from './system.ts';

/** The figure that says how much less than all dirty pages travels. */
export const saved = 'saved';

interface ProtectedSystem extends RunningSystem {
  /** Kills every process of the leader with SIGKILL. */
  killLeader(): Promise<void>;
  /** Resolves once the VM is PROTECTED. */
  untilProtected(): Promise<void>;
}

interface GaiaVm extends System {
  start(image: Image): Promise<ProtectedSystem>;
}

export function gaiaVm(name: string, words: readonly string[]): GaiaVm {
  return {
    name,
    describe: `gaia-vm start ${words.join(' ')}`,
    whyImpossible: () => undefined,
    async start(image) {
      const namespace = await NetworkNamespace.create();
      const vm = await TestVm.prepare('bench', namespace);
      const stop = async (): Promise<void> => {
        await vm.remove();
        await namespace.remove();
      };
      try {
        const status = await vm.start('--replicas', '3', '--image', image.name, ...words);
        return {
          targets: [{ namespace, host: status.address, port: status.port ?? 0 }],
          figures: async () => figuresOf(await vm.status()),
          killLeader: async () => signalReplica(leaderOf(await vm.status()), 'SIGKILL'),
          untilProtected: async () => {
            await vm.until((now) => now.protection === 'PROTECTED');
          },
          stop,
        };
      } catch (error) {
        await stop();
        throw error;
      }
    },
  };
}

/** What the leader tells of its rounds. */
export function figuresOf(vm: VmStatus): SystemFigures {
  const { status } = leaderOf(vm);
  if (status === undefined) return {};
  const { exchange } = status;
  if (exchange === null) {
    const compared = status.verifications === 0 ? NaN : status.verifiedPages / status.verifications;
    return {
      'pages compared': { unit: 'pages/comparison', value: compared },
      'divergent pages': { unit: 'pages', value: status.divergentPages },
    };
  }
  return {
    'pause p50': { unit: 'ms', value: exchange.pauseMs.p50 },
    'pause p99': { unit: 'ms', value: exchange.pauseMs.p99 },
    'pause: union': { unit: 'ms', value: exchange.openMs },
    'pause: comparison': { unit: 'ms', value: exchange.compareMs },
    'pause: shipping': { unit: 'ms', value: exchange.shipMs },
    'pause: applying': { unit: 'ms', value: exchange.applyMs },
    'output held p50': { unit: 'ms', value: exchange.heldMs.p50 },
    dirty: { unit: 'pages/round', value: exchange.dirtyPages },
    union: { unit: 'pages/round', value: exchange.unionPages },
    divergent: { unit: 'pages/round', value: exchange.divergentPages },
    shipped: { unit: 'kB/round', value: exchange.sentBytes / 1000 },
    [saved]: { unit: '% of dirty bytes', value: exchange.savedPercent },
  };
}
