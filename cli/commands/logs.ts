/** `gaia-vm logs`: what the parts of a VM wrote, newest last. */
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandModule } from 'yargs';
import { logSources, readLogs, type LogLine, type LogSource } from '../../vmm/index.ts';
import { interruptible } from '../interruption.ts';
import { paint, printDocument, withOutputOption, type OutputFormat } from '../output.ts';

interface LogsArguments {
  readonly vm: string;
  readonly replica: string | undefined;
  readonly source: LogSource;
  readonly lines: number;
  readonly follow: boolean;
  readonly output: OutputFormat;
}

const followIntervalMs = 300;

export const logsCommand: CommandModule<object, LogsArguments> = {
  command: 'logs [vm]',
  describe: 'What the agents, the QEMUs or the guest of a VM wrote',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('replica', { type: 'string', describe: 'Of this replica only' })
      .option('source', {
        choices: logSources,
        default: 'agent' as const,
        describe: "Agents, QEMUs, or the guest's serial console",
      })
      .option('lines', { alias: 'n', type: 'number', default: 50, describe: 'How many, the newest ones' })
      .option('follow', { alias: 'f', type: 'boolean', default: false, describe: 'Go on with new lines' })
      .example('$0 logs web1 --replica beta --follow', 'what the agent of beta does')
      .example('$0 logs web1 --source serial', 'what the guest says'),
  handler: async ({ vm, replica, source, lines, follow, output }) => {
    const wanted = { vm, replica, source };
    const read = readLogs(wanted);
    const newest = lines > 0 ? read.lines.slice(-lines) : [];
    printDocument(output, { lines: newest }, () => newest.map(renderLine).join('\n'));
    if (follow) await interruptible((signal) => followLogs(wanted, read.positions, signal));
  },
};

async function followLogs(
  wanted: Parameters<typeof readLogs>[0],
  positions: ReadonlyMap<string, number>,
  signal: AbortSignal,
): Promise<void> {
  for (let from = positions; ;) {
    await delay(followIntervalMs, undefined, { signal }).catch(() => undefined);
    signal.throwIfAborted();
    const read = readLogs(wanted, from);
    from = read.positions;
    if (read.lines.length > 0) process.stdout.write(`${read.lines.map(renderLine).join('\n')}\n`);
  }
}

function renderLine({ replica, text }: LogLine): string {
  return `${paint('dim', replica)}  ${text}`;
}
