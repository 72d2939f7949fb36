/** `gaia-vm start`: a protected VM from an image. */
import type { CommandModule } from 'yargs';
import { restartVm, selfCommand, startVm, vmHasEnded, type VmStatus } from '../../vmm/index.ts';
import { findGuest } from '../guest.ts';
import { operatorNetwork } from '../guest-network.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';
import { parseMemory } from '../size.ts';
import { readStartConfig } from '../start-config.ts';
import { renderStatus, statusDocument } from '../status-view.ts';

interface StartArguments {
  readonly vm: string | undefined;
  readonly config?: string;
  readonly name: string | undefined;
  readonly image: string | undefined;
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string | undefined;
  readonly replicas: number;
  readonly memory: string | undefined;
  readonly mode: 'vsmr' | 'lockstep' | 'checkpoint' | undefined;
  readonly accel: 'auto' | 'tcg' | 'kvm';
  readonly vcpus: number;
  readonly 'scan-memory': boolean;
  readonly durability: 'disk' | 'memory';
  readonly 'discard-log': boolean;
  readonly transport: 'shm' | 'fabric';
  readonly bridge: string | undefined;
  readonly address: string | undefined;
  readonly gateway: string | undefined;
  readonly timeout: number;
  readonly output: OutputFormat;
}

const vmNameDefault = 'web1';
const memoryBytesDefault = 256 << 20;

export const startCommand: CommandModule<object, StartArguments> = {
  command: 'start [vm]',
  describe: 'Start a protected VM',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', describe: 'Its name; one that has ended boots afresh' })
      .config('config', 'A YAML file that says the same, see vm.schema.json', readStartConfig)
      .option('name', { type: 'string', conflicts: 'vm', describe: 'The same; web1 unless given' })
      .option('image', { type: 'string', describe: 'Guest image, see "image list"; memcached unless given' })
      .option('kernel', { type: 'string', describe: 'A kernel of your own, instead of an image' })
      .option('initrd', { type: 'string', describe: 'Its initial file system', implies: 'kernel' })
      .option('append', { type: 'string', describe: 'Words for its command line', implies: 'kernel' })
      .option('replicas', { type: 'number', default: 3, describe: 'Leader, major backup, standby backup' })
      .option('memory', { type: 'string', describe: 'Guest memory; 256M, or more where the image needs it' })
      .option('mode', {
        choices: ['vsmr', 'lockstep', 'checkpoint'] as const,
        describe:
          'Guests run freely and are made equal; or instruction by instruction alike; or one runs. By what the machine can, unless given',
      })
      .option('accel', {
        choices: ['auto', 'tcg', 'kvm'] as const,
        default: 'auto' as const,
        describe: 'KVM where it runs guests, else TCG',
      })
      .option('vcpus', { type: 'number', default: 1, describe: 'Processors of the guest; lockstep has one' })
      .option('scan-memory', {
        type: 'boolean',
        default: false,
        describe: 'Compare all memory after each round of vsmr: slow, to look for faults',
      })
      .option('durability', {
        choices: ['disk', 'memory'] as const,
        default: 'disk' as const,
        describe:
          'Inputs count once on the disks of two replicas; or in their memory, lost if all lose power',
      })
      .option('discard-log', {
        type: 'boolean',
        default: false,
        describe: 'A VM that has ended: give up what its logs hold',
      })
      .option('transport', {
        choices: ['shm', 'fabric'] as const,
        default: 'shm' as const,
        describe: 'How replicas reach each other: shared memory, or puts by libfabric over TCP',
      })
      .option('bridge', {
        type: 'string',
        implies: 'address',
        describe: "A bridge of yours for the guest's network, which stays; one is made unless given",
      })
      .option('address', { type: 'string', implies: 'bridge', describe: "The guest's there: 192.0.2.10/24" })
      .option('gateway', { type: 'string', implies: 'bridge', describe: "The guest's way out of there" })
      .option('timeout', { type: 'number', default: 120, describe: 'Seconds until PROTECTED at most' })
      .example('$0 start --replicas 3', 'the demo: memcached that outlives its host')
      .example('$0 start --name db1 --image redis --memory 512M', 'another guest beside it')
      .example('$0 start --mode vsmr --vcpus 2', 'guests that run freely, with two processors')
      .example('$0 start --bridge br0 --address 192.0.2.10/24', 'on your own network')
      .example('$0 start --config db1.yaml', 'the same from a file; flags count more')
      .example('$0 start web1 --discard-log', 'afresh, after all of it has ended')
      .example('$0 start --kernel vmlinuz --initrd initrd.img', 'a guest of your own'),
  handler: async (given) => {
    const name = given.vm ?? given.name ?? vmNameDefault;
    const status = await interruptible((signal) =>
      withProgress(`Starting ${name}`, (report) => start(name, given, report, signal)),
    );
    printDocument(given.output, statusDocument(status), () => `${renderStatus(status)}\n\n${hints(status)}`);
  },
};

async function start(
  name: string,
  given: StartArguments,
  report: (text: string) => void,
  signal: AbortSignal,
): Promise<VmStatus> {
  const timeoutMs = given.timeout * 1000;
  const asItWas = [given.image, given.kernel, given.memory, given.bridge].every(
    (option) => option === undefined,
  );
  if (given.vm !== undefined && asItWas && vmHasEnded(name)) {
    report("nothing of it runs: it boots afresh, and what was in its guest's memory is lost");
    return restartVm(name, given['discard-log'], timeoutMs, report, signal);
  }
  const network = operatorNetwork(given, given.config ?? 'The command line');
  const wanted = given.memory === undefined ? undefined : parseMemory(given.memory);
  const image = await findGuest(given, report);
  const memoryBytes = wanted ?? Math.max(memoryBytesDefault, image.memoryBytesMin);
  const { replicas, durability, transport, mode, accel: accelerator, vcpus } = given;
  const execution = { mode, accelerator, vcpus };
  const scans = given['scan-memory'];
  return startVm(
    { name, image, replicas, memoryBytes, execution, scans, durability, transport, network, timeoutMs },
    report,
    signal,
  );
}

function hints(status: VmStatus): string {
  const { name, address, port, leader } = status;
  const command = selfCommand();
  const serving = status.replicas.find((replica) => replica.name === leader)?.status;
  const pids = [serving?.agentPid, serving?.qemuPid ?? undefined]
    .filter((pid) => pid !== undefined)
    .join(' ');
  const { mode, modeReason, accelerator } = status;
  return [
    `mode    ${mode} under ${accelerator.toUpperCase()}: ${modeReason}`,
    ...(port === null ? [] : [`reach   ${address}:${port}${firstRequest(status)}`]),
    `watch   ${command} status ${name} --watch`,
    `kill    kill -9 ${pids}   ends the leader; a connection that is open stays open`,
    `stop    ${command} stop ${name}`,
  ].join('\n');
}

/** Something to paste, for the demo image that a newcomer meets first. */
function firstRequest({ image, address, port }: VmStatus): string {
  if (image !== 'memcached' || port === null) return '';
  return `   for example: exec 3<>/dev/tcp/${address}/${port}; printf 'version\\r\\n' >&3; head -n 1 <&3`;
}
