import type * as fs from 'node:fs';
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ShellCluster } from '../test/framework/shell-cluster.ts';

/** No file in these folders can be synced. */
let failing: string[] = [];

vi.mock('node:fs', async (original) => {
  const actual = await original<typeof fs>();
  const fdatasyncSync = (fd: number): void => {
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    if (failing.some((folder) => path.startsWith(folder)))
      throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO', syscall: 'fdatasync' });
    actual.fdatasyncSync(fd);
  };
  return { ...actual, fdatasyncSync };
});

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-votes-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('a vote that cannot be made durable stops its replica, and nobody hears of it', () => {
  const cluster = new ShellCluster('disk', folder);
  failing = ['1', '2'].map((id) => join(folder, id));
  const stopped: unknown[] = [];
  for (const replica of [cluster.replica(1), cluster.replica(2)]) {
    const pass = replica.pass.bind(replica);
    replica.pass = () => {
      try {
        pass();
      } catch (error) {
        stopped.push(error);
        replica.turns = false;
      }
    };
  }
  const { falcon } = cluster.replica(0);
  cluster.until('both are asked for their vote', () => stopped.length === 2);
  cluster.until('replica 0 stands no longer', () => falcon.role !== 'candidate');
  expect(stopped).toEqual([1, 2].map(() => expect.objectContaining({ code: 'EIO' }) as Error));
  expect(falcon.role).not.toBe('leader');
  for (const own of failing)
    expect(readFileSync(join(own, 'hard-state.json'), 'utf8')).toContain('"term":0,"votedFor":-1');
  cluster.close();
  failing = [];

  const again = new ShellCluster('disk', folder);
  again.until('replica 0 serves', () => again.replica(0).falcon.mayServe);
  again.close();
});
