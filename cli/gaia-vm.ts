#!/usr/bin/env node
/**
 * The gaia-vm command. Results go to stdout, everything else to stderr; an expected failure is one line
 * there, and every exit code is listed in exit-code.ts.
 */
import yargs, { type Argv } from 'yargs';
import { gaiaVersion, StartTimeoutError, VmTimeoutError } from '../vmm/index.ts';
import { agentCommand } from './commands/agent.ts';
import { checkCommand } from './commands/check.ts';
import { drillCommand } from './commands/drill.ts';
import { failoverCommand } from './commands/failover.ts';
import { imageCommand } from './commands/image.ts';
import { eventsCommand } from './commands/events.ts';
import { logsCommand } from './commands/logs.ts';
import { qemuCommand } from './commands/qemu.ts';
import { startCommand } from './commands/start.ts';
import { listCommand, statusCommand } from './commands/status.ts';
import { stopCommand } from './commands/stop.ts';
import { waitCommand } from './commands/wait.ts';
import { exitCode } from './exit-code.ts';
import { InterruptedError } from './interruption.ts';
import { UsageError } from './usage-error.ts';

function commands(): Argv {
  return yargs(process.argv.slice(2))
    .scriptName('gaia-vm')
    .locale('en')
    .usage('$0 COMMAND: fault-tolerant virtual machines')
    .command(startCommand)
    .command(statusCommand)
    .command(listCommand)
    .command(eventsCommand)
    .command(logsCommand)
    .command(waitCommand)
    .command(failoverCommand)
    .command(drillCommand)
    .command(stopCommand)
    .command(agentCommand)
    .command(checkCommand)
    .command(imageCommand)
    .command(qemuCommand)
    .completion('completion', 'Print a completion script for bash or zsh')
    .example('$0 check', 'see whether VMs can start on this machine')
    .example('source <($0 completion)', 'complete commands with the Tab key')
    .epilogue(
      'Exit codes: 0 done, 1 error, 2 wrong usage, 3 degraded, 4 no quorum, 5 timeout, 6 broken environment.',
    )
    .demandCommand(1, 'Which command?')
    .strict()
    .version(gaiaVersion())
    .wrap(Math.min(110, process.stdout.columns || 110))
    .exitProcess(false)
    .fail((message: string, error: unknown) => {
      // yargs' own complaints are of its class YError; anything else comes from a command.
      if (error instanceof Error && error.name !== 'YError') throw error;
      throw new UsageError(message);
    });
}

/** Prints the failure and returns the exit code that belongs to it. */
function reportFailure(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(`gaia-vm: ${error.message.trim()}\nTry "gaia-vm --help"\n`);
    return exitCode.usage;
  }
  if (error instanceof InterruptedError) {
    process.stderr.write(`gaia-vm: ${error.message}\n`);
    return 128 + error.signalNumber;
  }
  if (error instanceof Error && 'code' in error && String(error.code).startsWith('GAIA_')) {
    process.stderr.write(`gaia-vm: ${error.message}\n`);
    if (error instanceof StartTimeoutError || error instanceof VmTimeoutError) return exitCode.timeout;
    if (error.code === 'GAIA_NO_LEADER') return exitCode.noQuorum;
    return 'remedy' in error ? exitCode.brokenEnvironment : exitCode.error;
  }
  // A bug of ours: the stack is what its report needs.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`gaia-vm: unexpected failure, please report it: ${text}\n`);
  return exitCode.error;
}

// A reader that has seen enough (head, less) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});

try {
  await commands().parseAsync();
} catch (error) {
  process.exitCode = reportFailure(error);
}
