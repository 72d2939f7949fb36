/** `gaia-vm wait`: until a VM is as it is wanted, for scripts. */
import type { CommandModule } from 'yargs';
import { waitConditions, waitForVm, type WaitCondition } from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';
import { renderStatus, statusDocument } from '../status-view.ts';

interface WaitArguments {
  readonly vm: string;
  readonly for: WaitCondition;
  readonly timeout: number;
  readonly output: OutputFormat;
}

export const waitCommand: CommandModule<object, WaitArguments> = {
  command: 'wait [vm]',
  describe: 'Wait until a VM is as it is wanted',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('for', {
        choices: waitConditions,
        default: 'protected' as const,
        describe: 'What to wait for',
      })
      .option('timeout', { type: 'number', default: 60, describe: 'Seconds to wait at most' })
      .example('$0 wait web1 --for protected --timeout 30', 'exit code 5 when it takes longer'),
  handler: async ({ vm, for: condition, timeout, output }) => {
    const status = await interruptible((signal) =>
      withProgress(`Waiting until ${vm} is ${condition}`, (report) =>
        waitForVm({ name: vm, condition, timeoutMs: timeout * 1000 }, report, signal),
      ),
    );
    printDocument(output, statusDocument(status), () => renderStatus(status));
  },
};
