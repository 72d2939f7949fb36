/** `gaia-vm status` and `gaia-vm list`: how VMs are, asked anew each time. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandModule } from 'yargs';
import { vmNames, vmStatus, type VmStatus } from '../../vmm/index.ts';
import { exitCode } from '../exit-code.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, renderTable, withOutputOption, type OutputFormat } from '../output.ts';
import { renderStatus, statusDocument } from '../status-view.ts';

interface StatusArguments {
  readonly vm: string;
  readonly watch: boolean;
  readonly output: OutputFormat;
}

const watchIntervalMs = 500;

export const statusCommand: CommandModule<object, StatusArguments> = {
  command: 'status [vm]',
  describe: 'How a VM is: health, replicas, figures',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('watch', { type: 'boolean', default: false, describe: 'Show it again and again' })
      .example('$0 status web1', 'exit code 0 protected, 3 degraded, 4 no quorum')
      .example('$0 status web1 -o json', 'the same for scripts'),
  handler: async ({ vm, watch, output }) => {
    if (watch) await interruptible((signal) => watchStatus(vm, signal));
    const status = await vmStatus(vm);
    printDocument(output, statusDocument(status), () => renderStatus(status));
    process.exitCode = codeOf(status);
  },
};

async function watchStatus(vm: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const status = await vmStatus(vm);
    process.stdout.write(`${process.stdout.isTTY ? '\u001b[2J\u001b[H' : ''}${renderStatus(status)}\n`);
    await delay(watchIntervalMs, undefined, { signal }).catch(() => undefined);
  }
}

function codeOf({ protection }: VmStatus): number {
  switch (protection) {
    case 'PROTECTED':
      return exitCode.done;
    case 'NO-QUORUM':
      return exitCode.noQuorum;
    default:
      return exitCode.degraded;
  }
}

export const listCommand: CommandModule<object, { readonly output: OutputFormat }> = {
  command: 'list',
  describe: 'The VMs of this machine',
  builder: (yargs) => withOutputOption(yargs).example('$0 list', 'one line per VM'),
  handler: async ({ output }) => {
    const vms = await Promise.all(vmNames().map((name) => vmStatus(name)));
    printDocument(output, { vms }, () =>
      vms.length === 0
        ? 'No VM here: start one with "gaia-vm start"'
        : renderTable([
            ['VM', 'HEALTH', 'LEADER', 'ADDRESS', 'IMAGE'],
            ...vms.map((vm) => [vm.name, vm.protection, vm.leader ?? '?', vm.address, vm.image]),
          ]),
    );
  },
};
