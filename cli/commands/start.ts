/** `gaia-vm start`: a protected VM from an image. */
import type { CommandModule } from 'yargs';
import { buildImage, describeOwnKernel, findImage, type Image } from '../../images/index.ts';
import { folders, selfCommand, startVm, type VmStatus } from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';
import { parseMemory } from '../size.ts';
import { renderStatus, statusDocument } from '../status-view.ts';

interface StartArguments {
  readonly name: string;
  readonly image: string;
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string | undefined;
  readonly replicas: number;
  readonly memory: string | undefined;
  readonly timeout: number;
  readonly output: OutputFormat;
}

const memoryBytesDefault = 256 << 20;

export const startCommand: CommandModule<object, StartArguments> = {
  command: 'start',
  describe: 'Start a protected VM',
  builder: (yargs) =>
    withOutputOption(yargs)
      .option('name', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('image', { type: 'string', default: 'memcached', describe: 'Guest image, see "image list"' })
      .option('kernel', { type: 'string', describe: 'A kernel of your own, instead of an image' })
      .option('initrd', { type: 'string', describe: 'Its initial file system', implies: 'kernel' })
      .option('append', { type: 'string', describe: 'Words for its command line', implies: 'kernel' })
      .option('replicas', { type: 'number', default: 3, describe: 'Leader, major backup, standby backup' })
      .option('memory', { type: 'string', describe: 'Guest memory; 256M, or more where the image needs it' })
      .option('timeout', { type: 'number', default: 120, describe: 'Seconds until PROTECTED at most' })
      .example('$0 start --replicas 3', 'the demo: memcached that outlives its host')
      .example('$0 start --name db1 --image redis --memory 512M', 'another guest beside it')
      .example('$0 start --kernel vmlinuz --initrd initrd.img', 'a guest of your own'),
  handler: async (given) => {
    const { name, replicas, timeout, output } = given;
    const wanted = given.memory === undefined ? undefined : parseMemory(given.memory);
    const status = await interruptible((signal) =>
      withProgress(`Starting ${name}`, async (report) => {
        const image = await findGuest(given, report);
        const memoryBytes = wanted ?? Math.max(memoryBytesDefault, image.memoryBytesMin);
        return startVm({ name, image, replicas, memoryBytes, timeoutMs: timeout * 1000 }, report, signal);
      }),
    );
    printDocument(output, statusDocument(status), () => `${renderStatus(status)}\n\n${hints(status)}`);
  },
};

/** The kernel that was given, or the image by its name, built first if it is not there yet. */
async function findGuest(
  { image, kernel, initrd, append }: StartArguments,
  report: (text: string) => void,
): Promise<Image> {
  if (kernel !== undefined)
    return describeOwnKernel({
      kernel,
      ...(initrd === undefined ? {} : { initrd }),
      ...(append === undefined ? {} : { kernelArguments: append.split(' ').filter((word) => word !== '') }),
    });
  const cacheFolder = folders().cache;
  try {
    return await findImage(image, cacheFolder);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'GAIA_IMAGE_NOT_BUILT')) throw error;
    report(`building image ${image}`);
    return buildImage(image, { cacheFolder });
  }
}

function hints(status: VmStatus): string {
  const { name, address, port, leader } = status;
  const command = selfCommand();
  const serving = status.replicas.find((replica) => replica.name === leader)?.status;
  const pids = [serving?.agentPid, serving?.qemuPid ?? undefined]
    .filter((pid) => pid !== undefined)
    .join(' ');
  return [
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
