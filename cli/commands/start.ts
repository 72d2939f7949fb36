/** `gaia-vm start`: a protected VM from an image. */
import type { CommandModule } from 'yargs';
import { buildImage, findImage } from '../../images/index.ts';
import { folders, selfCommand, startVm, type VmStatus } from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';
import { parseMemory } from '../size.ts';
import { renderStatus, statusDocument } from '../status-view.ts';

interface StartArguments {
  readonly name: string;
  readonly image: string;
  readonly replicas: number;
  readonly memory: string;
  readonly timeout: number;
  readonly output: OutputFormat;
}

export const startCommand: CommandModule<object, StartArguments> = {
  command: 'start',
  describe: 'Start a protected VM',
  builder: (yargs) =>
    withOutputOption(yargs)
      .option('name', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('image', { type: 'string', default: 'memcached', describe: 'Guest image, see "image list"' })
      .option('replicas', { type: 'number', default: 3, describe: 'Leader, major backup, standby backup' })
      .option('memory', { type: 'string', default: '256M', describe: 'Guest memory' })
      .option('timeout', { type: 'number', default: 120, describe: 'Seconds until PROTECTED at most' })
      .example('$0 start --replicas 3', 'the demo: memcached that outlives its host')
      .example('$0 start --name db1 --image redis --memory 512M', 'another guest beside it'),
  handler: async ({ name, image: imageName, replicas, memory, timeout, output }) => {
    const memoryBytes = parseMemory(memory);
    const status = await interruptible((signal) =>
      withProgress(`Starting ${name}`, async (report) => {
        const cacheFolder = folders().cache;
        const image = await findImage(imageName, cacheFolder).catch(async (error: unknown) => {
          if (!(error instanceof Error && 'code' in error && error.code === 'GAIA_IMAGE_NOT_BUILT'))
            throw error;
          report(`building image ${imageName}`);
          return buildImage(imageName, { cacheFolder });
        });
        return startVm({ name, image, replicas, memoryBytes, timeoutMs: timeout * 1000 }, report, signal);
      }),
    );
    printDocument(output, statusDocument(status), () => `${renderStatus(status)}\n\n${hints(status)}`);
  },
};

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
