/** The load generator that Redis' own users take, redis-benchmark of Debian's package redis-tools. */
import { spawnSync } from 'node:child_process';
import { BrokenEnvironmentError } from '../../vmm/index.ts';
import type { NetworkNamespace } from '../framework/network-namespace.ts';

export interface RedisLoad {
  readonly operation: 'SET' | 'GET';
  readonly requests: number;
  readonly connections: number;
}

/** The version of redis-benchmark here. Throws when there is none. */
export function redisBenchmarkVersion(): string {
  const { status, stdout } = spawnSync('redis-benchmark', ['--version'], { encoding: 'utf8' });
  if (status !== 0)
    throw new BrokenEnvironmentError(
      'GAIA_BENCH_REDIS',
      'The bench needs redis-benchmark, which this machine lacks',
      'apt-get install redis-tools',
    );
  return stdout.trim().replace(/^redis-benchmark /, '');
}

/** Runs it to its end from inside the namespace; requests per second. */
export async function redisRequestsPerSecond(
  namespace: NetworkNamespace,
  host: string,
  port: number,
  { operation, requests, connections }: RedisLoad,
): Promise<number> {
  const words = ['-t', operation.toLowerCase(), '-n', String(requests), '-c', String(connections), '--csv'];
  const text = await namespace.run('redis-benchmark', ['-h', host, '-p', String(port), ...words]);
  return requestsPerSecondIn(text, operation);
}

/** Reads the table that `--csv` prints. Throws when the operation is not in it. */
export function requestsPerSecondIn(csv: string, operation: string): number {
  const [header = [], ...rows] = csv
    .trim()
    .split('\n')
    .map((line) => line.split(',').map((cell) => cell.replaceAll('"', '')));
  const row = rows.find(([name]) => name === operation);
  const rate = Number(row?.[header.indexOf('rps')]);
  if (!(rate > 0)) throw new Error(`redis-benchmark says nothing of ${operation}:\n${csv}`);
  return rate;
}
