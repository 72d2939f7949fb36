/**
 * The services that must survive, each with clients that notice every fault: what Debian's own load generators
 * report, and what verifying clients read.
 */
import { createHash } from 'node:crypto';
import { generatedContents } from '../../images/recipe.ts';
import type { CommandReport } from './command-load.ts';
import type { LoadReport } from './load-program.ts';
import { LoadProcess } from './load-process.ts';
import type { NetworkNamespace } from './network-namespace.ts';

/** What all clients of a workload saw together. */
interface Outcome {
  /** Broken connections, refusals and wrong values, in words. */
  readonly faults: readonly string[];
  /** How much was done, for people. */
  readonly summary: string;
}

interface RunningWorkload {
  /** Ends the clients and tells what they saw. */
  stop(): Promise<Outcome>;
  kill(): void;
}

export interface Workload {
  readonly name: string;
  readonly image: string;
  start(namespace: NetworkNamespace, host: string, port: number): Promise<RunningWorkload>;
}

export const workloads: readonly Workload[] = [
  {
    name: 'redis under redis-benchmark',
    image: 'redis',
    start: (namespace, host, port) => {
      const words = ['redis-benchmark', '-h', host, '-p', `${port}`, '-c', '16', '-n', '100000000'];
      return commandLoad(namespace, [...words, '-t', 'set', '-r', '10000', '-q'], (output) => ({
        faults: /error|closed/i.test(output) ? [output.slice(-500)] : [],
        summary: output.split('\r').at(-2)?.trim() ?? '',
      }));
    },
  },
  {
    name: 'memcached under verifying clients',
    image: 'memcached',
    start: (namespace, host, port) => verifyingLoad(namespace, 'memcached-load.js', [host, `${port}`, '8']),
  },
  {
    name: 'nginx under wrk and one long download',
    image: 'nginx',
    start: async (namespace, host, port) => {
      const sha256 = createHash('sha256')
        .update(generatedContents('srv/www/2m.bin', 2 << 20))
        .digest('hex');
      return together([
        await verifyingLoad(namespace, 'download-load.js', [
          host,
          `${port}`,
          `/2m.bin?rate=${128 << 10}`,
          sha256,
        ]),
        await commandLoad(
          namespace,
          ['wrk', '-t', '1', '-c', '8', '-d', '1h', '--timeout', '10s', `http://${host}:${port}/`],
          wrkOutcome,
        ),
      ]);
    },
  },
  {
    name: 'mariadb under sysbench OLTP',
    image: 'mariadb',
    start: async (namespace, host, port) => {
      const words = [
        'oltp_read_write',
        `--mysql-host=${host}`,
        `--mysql-port=${port}`,
        '--mysql-user=sbtest',
        '--mysql-password=sbtest',
        '--mysql-db=sbtest',
        '--tables=1',
        '--table-size=2000',
        '--rand-type=uniform',
        // A deadlock between transactions is the work of its clients, on any server; every other error ends sysbench.
        '--mysql-ignore-errors=1213',
      ];
      await namespace.run('sysbench', [...words, 'prepare']);
      return commandLoad(
        namespace,
        ['sysbench', ...words, '--threads=4', '--time=0', '--events=0', '--report-interval=1', 'run'],
        sysbenchOutcome,
      );
    },
  },
  {
    name: 'node-sqlite under verifying HTTP clients',
    image: 'node-sqlite',
    start: (namespace, host, port) => verifyingLoad(namespace, 'store-load.js', [host, `${port}`, '4']),
  },
];

async function verifyingLoad(
  namespace: NetworkNamespace,
  program: string,
  words: readonly string[],
): Promise<RunningWorkload> {
  const load = await LoadProcess.start<LoadReport>(namespace, program, words);
  return {
    kill: () => load.kill(),
    stop: async () => {
      const report = await load.stop();
      return {
        faults: [...report.errors, ...report.wrongValues],
        summary: `${report.operations} operations, longest reply ${report.longestReplyMs.toFixed(0)} ms`,
      };
    },
  };
}

async function commandLoad(
  namespace: NetworkNamespace,
  words: readonly string[],
  outcomeOf: (output: string) => Outcome,
): Promise<RunningWorkload> {
  const load = await LoadProcess.start<CommandReport>(namespace, 'command-load.js', words);
  return {
    kill: () => load.kill(),
    stop: async () => {
      const { output, endedEarly } = await load.stop();
      const outcome = outcomeOf(output);
      const early = endedEarly === null ? [] : [`${words[0] ?? ''} ended with ${endedEarly}: ${output}`];
      return { faults: [...early, ...outcome.faults], summary: outcome.summary };
    },
  };
}

function together(parts: readonly RunningWorkload[]): RunningWorkload {
  return {
    kill: () => parts.forEach((part) => part.kill()),
    stop: async () => {
      const outcomes = await Promise.all(parts.map((part) => part.stop()));
      return {
        faults: outcomes.flatMap((outcome) => outcome.faults),
        summary: outcomes.map((outcome) => outcome.summary).join('; '),
      };
    },
  };
}

/** wrk names socket errors and answers other than 2xx and 3xx only when there were some. */
function wrkOutcome(output: string): Outcome {
  const requests = /(\d+) requests in/.exec(output)?.[1];
  const faults = output.split('\n').filter((line) => /Socket errors|Non-2xx|unable/.test(line));
  if (requests === undefined) faults.push(`wrk gave no result: ${output}`);
  return { faults, summary: `${requests ?? '0'} requests` };
}

/** Every second's line counts reconnections, and as errors deadlocks, which are ignored; all other ones are fatal. */
function sysbenchOutcome(output: string): Outcome {
  const lines = output.split('\n').filter((line) => line.includes('thds:'));
  const faults = lines.filter((line) => !line.includes('reconn/s: 0.00'));
  if (/FATAL|error /.test(output)) faults.push(output.slice(-500));
  if (lines.length === 0) faults.push(`sysbench gave no result: ${output}`);
  return { faults, summary: lines.at(-1)?.trim() ?? '' };
}
