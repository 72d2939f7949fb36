/** `gaia-vm drill`: rehearses a failure for real, and says what clients saw of it. */
import type { CommandModule } from 'yargs';
import { drillVm, type DrillReport, type DrillTarget } from '../../vmm/index.ts';
import { exitCode } from '../exit-code.ts';
import { interruptible } from '../interruption.ts';
import { printDocument, renderTable, withOutputOption, type OutputFormat } from '../output.ts';
import { withProgress } from '../progress.ts';

interface DrillArguments {
  readonly vm: string;
  readonly kill: DrillTarget;
  readonly force: boolean;
  readonly timeout: number;
  readonly output: OutputFormat;
}

const targets: readonly DrillTarget[] = ['leader', 'backup', 'standby'];

export const drillCommand: CommandModule<object, DrillArguments> = {
  command: 'drill [vm]',
  describe: 'Kill a replica for real, and tell what clients saw of it',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('kill', { choices: targets, demandOption: true, describe: 'Whose processes get SIGKILL' })
      .option('force', { type: 'boolean', default: false, describe: 'Also where it may end the service' })
      .option('timeout', { type: 'number', default: 60, describe: 'Seconds until PROTECTED again at most' })
      .example('$0 drill web1 --kill leader', 'exit code 1 when a client lost anything'),
  handler: async ({ vm, kill, force, timeout, output }) => {
    const report = await interruptible((signal) =>
      withProgress(`Drill on ${vm}`, (tell) =>
        drillVm({ name: vm, kill, force, timeoutMs: timeout * 1000 }, tell, signal),
      ),
    );
    printDocument(output, { drill: report }, () => renderDrill(report));
    const { brokenConnections, lostRequests, wrongAnswers } = report.clients;
    if (brokenConnections + lostRequests + wrongAnswers > 0) process.exitCode = exitCode.error;
  },
};

function renderDrill(report: DrillReport): string {
  const { killed, role, pids, clients, leaderAfter, termAfter, unprotectedMs } = report;
  const lost = `${clients.lostRequests} of ${clients.requests} requests, ${clients.wrongAnswers} wrong answers`;
  return renderTable([
    ['killed', `${killed}, the ${role}: ${pids.map((pid) => `pid ${pid}`).join(', ')}`],
    ['gap', `${Math.round(clients.gapMs)} ms at most, median answer after ${clients.medianMs.toFixed(1)} ms`],
    ['broken', `${clients.brokenConnections} of ${clients.connections} connections`],
    ['lost', lost],
    ['serving', `${leaderAfter ?? '?'} in term ${termAfter}`],
    ['protected', `again after ${(unprotectedMs / 1000).toFixed(1)} s`],
  ]);
}
