/** `gaia-vm stop`: ends a VM and removes all that it made. */
import type { CommandModule } from 'yargs';
import { stopVm } from '../../vmm/index.ts';
import { withProgress } from '../progress.ts';

export const stopCommand: CommandModule<object, { readonly vm: string; readonly here: boolean }> = {
  command: 'stop [vm]',
  describe: 'End a VM and remove all that it made',
  builder: (yargs) =>
    yargs
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('here', {
        type: 'boolean',
        default: false,
        describe: 'Of a VM on several hosts: only what this host has of it, for good',
      })
      .example('$0 stop web1', 'its memory is lost; also cleans up after crashes'),
  handler: async ({ vm, here }) => {
    await withProgress(`Stopping ${vm}`, (report) => {
      report('ending its replicas');
      return stopVm(vm, here);
    });
    process.stdout.write(`vm ${vm} stopped\n`);
  },
};
