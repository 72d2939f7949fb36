/** gaia-vm on three hosts that share no memory: network namespaces with links of 1 Gb/s, clients outside of them. */
import { fabric } from '../../../native/fabric.ts';
import { SeparateHosts } from '../../framework/consensus/separate-hosts.ts';
import { guestAddress, HostedVm } from '../../framework/hosted-vm.ts';
import { figuresOf } from './protected.ts';
import type { System } from './system.ts';

const hostNumbers = [0, 1, 2] as const;
/** The one that is asked: any of them can tell. */
const asked = 2;
const readyTimeoutS = 120;

/** `lines` of the VM's file, the same on all hosts. */
export function gaiaVmOnHosts(name: string, lines: readonly string[]): System {
  return {
    name,
    describe: `gaia-vm agent on three namespaces with 1 Gb/s links, puts over TCP; ${lines.join(', ')}`,
    whyImpossible: () =>
      fabric() === undefined
        ? `${name}: the fabric addon was not built: install libfabric-dev, then run the same command again`
        : undefined,
    async start(image) {
      const hosts = await SeparateHosts.create(hostNumbers.length, true);
      const vm = await HostedVm.prepare('bench', hosts, image.name);
      const stop = async (): Promise<void> => {
        await vm.remove();
        await hosts.remove();
      };
      try {
        await vm.write(lines);
        for (const host of hostNumbers) vm.start(host);
        const { port } = await vm.untilProtected(asked, readyTimeoutS);
        return {
          targets: [{ namespace: hosts.outside, host: guestAddress, port: port ?? 0 }],
          figures: async () => figuresOf(await vm.status(asked)),
          stop,
        };
      } catch (error) {
        await stop();
        throw error;
      }
    },
  };
}
