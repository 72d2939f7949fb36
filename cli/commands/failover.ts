/** `gaia-vm failover`: a planned handover, without a kill and without a gap that clients would notice. */
import type { CommandModule } from 'yargs';
import { failOver } from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';

interface FailoverArguments {
  readonly vm: string;
  readonly to: string | undefined;
  readonly timeout: number;
  readonly output: OutputFormat;
}

export const failoverCommand: CommandModule<object, FailoverArguments> = {
  command: 'failover [vm]',
  describe: 'Hand the leadership over to another executing replica',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('to', { type: 'string', describe: 'Which replica; the other executing one unless given' })
      .option('timeout', { type: 'number', default: 10, describe: 'Seconds until it leads at most' })
      .example('$0 failover web1', 'before work on the host of the leader'),
  handler: async ({ vm, to, timeout, output }) => {
    const report = await interruptible((signal) =>
      withProgress(`Handing over ${vm}`, (tell) => failOver(vm, to, timeout * 1000, tell, signal)),
    );
    printDocument(output, { failover: report }, () => {
      const { from, to: leader, term, gapMs } = report;
      return `vm ${vm} handed over from ${from} to ${leader} in term ${term}${gapMs === null ? '' : `, gap ${gapMs} ms`}`;
    });
  },
};
