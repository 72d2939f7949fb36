/** `gaia-vm agent`: one replica of a VM whose others are on other hosts, in the foreground, for a service manager. */
import type { CommandModule } from 'yargs';
import { runHostedReplica, type HostOptions, type ReplicaPlace } from '../../vmm/index.ts';
import { exitCode } from '../exit-code.ts';
import { findGuest } from '../guest.ts';
import { interruptible, InterruptedError } from '../interruption.ts';
import { parseMemory } from '../size.ts';
import { readVmConfig } from '../start-config.ts';
import { guestAddress, guestGateway, isIpv4 } from '../guest-network.ts';
import { UsageError } from '../usage-error.ts';

interface AgentArguments {
  readonly config: string;
  readonly replica: string | undefined;
}

/** The file, as vm.schema.json lets it through. */
interface HostConfig {
  readonly name?: string;
  readonly image?: string;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly memory?: string;
  readonly mode?: 'vsmr' | 'lockstep' | 'checkpoint';
  readonly accel?: 'auto' | 'tcg' | 'kvm';
  readonly vcpus?: number;
  readonly replicas?: number | readonly ReplicaConfig[];
  readonly durability?: 'disk' | 'memory';
  readonly transport?: string;
  readonly provider?: 'tcp' | 'verbs';
  readonly bridge?: string;
  readonly address?: string;
  readonly gateway?: string;
}

interface ReplicaConfig {
  readonly name: string;
  readonly address: string;
  readonly bridge?: string;
  readonly stateDir?: string;
}

const portMax = 65_535;
const memoryBytesDefault = 256 << 20;

export const agentCommand: CommandModule<object, AgentArguments> = {
  command: 'agent',
  describe: 'Run one replica of a VM on several hosts, in the foreground',
  builder: (yargs) =>
    yargs
      .option('config', {
        type: 'string',
        demandOption: true,
        describe: 'The YAML file of the VM, the same on all its hosts',
      })
      .option('replica', {
        type: 'string',
        describe: 'Which; the one with an address of this host unless given',
      })
      .example('$0 agent --config /etc/gaia-vm/web1.yaml', 'what gaia-vm@web1.service runs')
      .example('$0 agent --config web1.yaml --replica alpha', 'the first of three'),
  handler: async ({ config, replica }) => {
    const file = readVmConfig(config) as HostConfig;
    const say = (line: string) => process.stderr.write(`${line}\n`);
    try {
      const options = await hostOptions(file, config, say);
      await interruptible((signal) => runHostedReplica(options, replica, say, signal));
    } catch (error) {
      // A service manager's TERM is no failure, also while the first replica is waited for.
      if (!(error instanceof InterruptedError)) throw error;
    }
    process.exit(exitCode.done);
  },
};

async function hostOptions(
  config: HostConfig,
  file: string,
  say: (line: string) => void,
): Promise<HostOptions> {
  const {
    name = 'web1',
    replicas,
    bridge,
    address,
    gateway = '',
    durability = 'disk',
    provider = 'tcp',
  } = config;
  if (typeof replicas !== 'object')
    throw new UsageError(
      `${file} lists no replicas: "gaia-vm start --config ${file}" runs all three on this machine`,
    );
  if (config.transport === 'shm')
    throw new UsageError(`${file} says "transport: shm", and replicas on separate hosts share no memory`);
  const places = replicas.map((replica) => placeOf(replica, bridge, file));
  const guest = await findGuest(config, say);
  const memoryBytes =
    config.memory === undefined
      ? Math.max(memoryBytesDefault, guest.memoryBytesMin)
      : parseMemory(config.memory);
  if (memoryBytes < guest.memoryBytesMin)
    throw new UsageError(
      `Image ${guest.name} needs ${guest.memoryBytesMin / 2 ** 20} MiB of memory, and ${file} gives ${memoryBytes / 2 ** 20} MiB`,
    );
  return {
    ...{ name, image: guest, memoryBytes, durability, provider },
    execution: { mode: config.mode, accelerator: config.accel ?? 'auto', vcpus: config.vcpus ?? 1 },
    guestAddress: guestAddress(address, file),
    gateway: guestGateway(gateway, file),
    replicas: places,
  };
}

function placeOf(replica: ReplicaConfig, bridge: string | undefined, file: string): ReplicaPlace {
  const [host = '', port = ''] = replica.address.split(':');
  const portNumber = Number(port);
  if (!isIpv4(host) || portNumber < 1 || portNumber > portMax)
    throw new UsageError(
      `${file} gives ${replica.name} the address ${replica.address}, which is none: write it as 192.0.2.1:7700`,
    );
  const itsBridge = replica.bridge ?? bridge;
  if (itsBridge === undefined)
    throw new UsageError(`${file} names no "bridge", neither for all hosts nor for ${replica.name}`);
  return {
    name: replica.name,
    address: { host, port: portNumber },
    bridge: itsBridge,
    stateFolder: replica.stateDir ?? null,
  };
}
