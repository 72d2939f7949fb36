/**
 * One run of load on a service for a while, by the generator that the service's own users take; memcached, whose
 * Debian package has none, by our verifying clients.
 */
import type { LoadReport } from '../../framework/load-program.ts';
import { LoadProcess } from '../../framework/load-process.ts';
import type { NetworkNamespace } from '../../framework/network-namespace.ts';
import { redisFiguresIn, sysbenchFiguresIn, wrkFiguresIn, type Figures } from './load-output.ts';

export interface Target {
  readonly namespace: NetworkNamespace;
  readonly host: string;
  readonly port: number;
}

export interface Load {
  /** The image that it loads, and the workload's name in the headline. */
  readonly image: string;
  readonly unit: string;
  readonly describe: string;
  /** Once per guest, before the first run. */
  prepare(target: Target): Promise<void>;
  /** Loads for about `seconds`. Throws when any client saw an error. */
  run(target: Target, seconds: number): Promise<Figures>;
}

/** redis-benchmark counts requests, not seconds: fewer than a bare guest answers in the time, or a slow mode takes minutes. */
const redisRequestsPerSecond = 2000;
/** As redis-benchmark has it, unless told otherwise. */
const connections = '50';
const sysbenchTable = [
  '--tables=1',
  '--table-size=2000',
  '--rand-type=uniform',
  '--mysql-ignore-errors=1213',
];

const nothing = (): Promise<void> => Promise.resolve();

export const loads: readonly Load[] = [
  {
    image: 'redis',
    unit: 'requests/s',
    describe: `redis-benchmark, SET, ${connections} connections, 10,000 keys`,
    prepare: nothing,
    run: async ({ namespace, host, port }, seconds) => {
      const requests = String(Math.round(seconds * redisRequestsPerSecond));
      const words = ['-h', host, '-p', String(port), '-c', connections, '-r', '10000', '-t', 'set', '--csv'];
      return redisFiguresIn(await namespace.run('redis-benchmark', [...words, '-n', requests]));
    },
  },
  {
    image: 'memcached',
    unit: 'requests/s',
    describe: `verifying clients, set and get by turns, ${connections} connections`,
    prepare: nothing,
    run: async ({ namespace, host, port }, seconds) => {
      const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', [
        host,
        String(port),
        connections,
      ]);
      const began = performance.now();
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      const report = await load.stop();
      const lasted = (performance.now() - began) / 1000;
      const faults = [...report.errors, ...report.wrongValues];
      if (faults.length > 0) throw new Error(faults.join('; '));
      return {
        rate: report.operations / lasted,
        p50Ms: report.medianReplyMs,
        p99Ms: report.p99ReplyMs,
        maxMs: report.longestReplyMs,
      };
    },
  },
  {
    image: 'nginx',
    unit: 'requests/s',
    describe: `wrk, a page of a few hundred bytes, ${connections} connections`,
    prepare: nothing,
    run: async ({ namespace, host, port }, seconds) => {
      const words = ['-t', '1', '-c', connections, '-d', `${seconds}s`, '--latency', '--timeout', '10s'];
      return wrkFiguresIn(await namespace.run('wrk', [...words, `http://${host}:${port}/`]));
    },
  },
  {
    image: 'mariadb',
    unit: 'transactions/s',
    describe: 'sysbench oltp_read_write, 2,000 rows, 4 threads',
    prepare: async (target) => {
      await target.namespace.run('sysbench', [...sysbenchWords(target), 'prepare']);
    },
    run: async (target, seconds) => {
      const words = [`--time=${seconds}`, '--events=0', '--threads=4', '--percentile=99', '--histogram=on'];
      return sysbenchFiguresIn(
        await target.namespace.run('sysbench', [...sysbenchWords(target), ...words, 'run']),
      );
    },
  },
];

function sysbenchWords({ host, port }: Target): string[] {
  const login = ['--mysql-user=sbtest', '--mysql-password=sbtest', '--mysql-db=sbtest'];
  return ['oltp_read_write', `--mysql-host=${host}`, `--mysql-port=${port}`, ...login, ...sysbenchTable];
}
