import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ShellCluster } from '../test/framework/shell-cluster.ts';

const mebibyte = 2 ** 20;

let folder: string;
let clusters: ShellCluster[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-shells-'));
  clusters = [];
});
afterEach(() => {
  for (const cluster of clusters) cluster.close();
  rmSync(folder, { recursive: true });
});

function begin(durability: 'disk' | 'memory'): ShellCluster {
  const cluster = new ShellCluster(durability, folder);
  clusters.push(cluster);
  return cluster;
}

function end(cluster: ShellCluster): void {
  cluster.close();
  clusters = clusters.filter((one) => one !== cluster);
}

describe('three replicas whose records must be on disk', () => {
  it('commit only what the disks of two of them hold', () => {
    const cluster = begin('disk');
    cluster.until('replica 0 serves', () => cluster.replica(0).falcon.mayServe);
    cluster.commit(100, 100);
    const { commitIndex } = cluster.replica(0).falcon;
    const durable = cluster.replicas.filter(({ falcon }) => falcon.state.durableIndex >= commitIndex);
    expect(durable.length).toBeGreaterThanOrEqual(2);
    expect(durable.map(({ id }) => id)).toContain(0);
  });

  it('feed one that fell behind all memory from the disk of their leader, while commit goes on', () => {
    const cluster = begin('disk');
    cluster.until('replica 0 serves', () => cluster.replica(0).falcon.mayServe);
    const { falcon: leader } = cluster.replica(0);
    const { falcon: behind } = cluster.replica(2);
    cluster.until('replica 2 follows', () => behind.commitIndex > 0);
    cluster.replica(2).turns = false;
    // More than memory holds.
    cluster.commit(100, mebibyte - 64);
    expect(leader.log.firstIndex).toBeGreaterThan(behind.log.lastIndex + 1);
    cluster.replica(2).turns = true;
    cluster.until('replica 2 is level', () => behind.commitIndex === leader.commitIndex);
    expect(cluster.replica(2).rebasedIndex).toBeUndefined();
    expect(behind.log.lastChecksum).toBe(leader.log.lastChecksum);
  }, 120_000);

  it('come back after all of them were cut off at once, with all that was committed', () => {
    const first = begin('disk');
    first.until('replica 0 serves', () => first.replica(0).falcon.mayServe);
    first.commit(50, 100);
    const { commitIndex, term } = first.replica(0).falcon;
    const checksum = first.replica(0).falcon.log.checksumAt(commitIndex);
    end(first);

    const again = begin('disk');
    again.until('one leads and has committed', () =>
      again.replicas.some(({ falcon }) => falcon.role === 'leader' && falcon.commitIndex > commitIndex),
    );
    for (const { falcon } of again.replicas) {
      if (falcon.role !== 'leader') continue;
      expect(falcon.term).toBeGreaterThan(term);
      expect(falcon.log.checksumAt(commitIndex)).toBe(checksum);
    }
  });
});

it('a replica whose segments were moved away gets its log from the others, and its vote with it', () => {
  const first = begin('disk');
  first.until('replica 0 serves', () => first.replica(0).falcon.mayServe);
  first.commit(50, 100);
  end(first);
  const own = join(folder, '2');
  for (const name of readdirSync(own)) if (name.startsWith('segment-')) rmSync(join(own, name));

  const again = begin('disk');
  const { falcon } = again.replica(2);
  expect(falcon.state.logLost).toBe(true);
  again.until('it is level', () => !falcon.state.logLost && !existsSync(join(own, 'log-lost')));
  expect(falcon.commitIndex).toBeGreaterThan(50);
});

it('three replicas with their records in memory lead nobody after all of them were cut off', () => {
  const first = begin('memory');
  first.until('replica 0 serves', () => first.replica(0).falcon.mayServe);
  first.commit(5, 100);
  end(first);
  const again = begin('memory');
  const began = performance.now();
  again.until('two seconds have passed', () => performance.now() - began > 2000);
  expect(again.replicas.map(({ falcon }) => falcon.role)).toEqual(['follower', 'follower', 'follower']);
});
