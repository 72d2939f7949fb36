import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { faultyDisk, type DiskFaults } from '../framework/faulty-disk.ts';

const program = join(import.meta.dirname, '../../dist/test/framework/log-child.js');

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gaia-log-'));
  folder = join(root, 'log');
});
afterEach(() => rmSync(root, { recursive: true }));

/** The lines of a writer that is killed after it has said so many. */
async function killedAfter(lines: number): Promise<string[]> {
  const child = spawn(process.execPath, [program, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line);
    if (said.length === lines) child.kill('SIGKILL');
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  expect(child.signalCode).toBe('SIGKILL');
  return said;
}

function run(faults: DiskFaults, limit: number): { readonly status: number | null; readonly said: string[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, folder, String(limit)], {
    encoding: 'utf8',
    env: faultyDisk(root, folder, faults),
    maxBuffer: 1 << 26,
  });
  expect(stderr).toBe('');
  return { status, said: stdout.trim().split('\n') };
}

const numberIn = (line: string | undefined): number => Number(line?.split(' ')[1]);

describe('a process that writes a durable log', () => {
  it('loses nothing that it called durable, whenever it is killed', async () => {
    let durable = 0;
    for (let life = 0; life < 15; life++) {
      const said = await killedAfter(2 + ((life * 53) % 300));
      expect(numberIn(said[0])).toBeGreaterThanOrEqual(durable);
      durable = numberIn(said.at(-1));
    }
    expect(durable).toBeGreaterThan(1000);
  });

  it('stops at the first sync that fails, says why, and calls nothing durable afterwards', () => {
    const { status, said } = run({ fdatasyncFails: 20 }, 1e9);
    expect(status).toBe(3);
    expect(said.at(-1)).toContain(`failed fdatasync failed with EIO (5) in ${folder}: the replica stops`);
    const durable = numberIn(said.at(-2));
    // What the failed sync was about may be there or not; what was durable before is.
    const again = run({}, durable);
    expect(again.status).toBe(0);
    expect(numberIn(again.said[0])).toBeGreaterThanOrEqual(durable);
  });

  it('stops at a write that fails', () => {
    const { status, said } = run({ pwriteFails: 30 }, 1e9);
    expect(status).toBe(3);
    expect(said.at(-1)).toContain('failed pwrite failed with ENOSPC (28)');
  });

  it('commits many records with each sync of a slow disk', () => {
    const { status, said } = run({ fdatasyncUs: 20_000 }, 3000);
    expect(status).toBe(0);
    // One at a time they would take a minute; so few lines, each of a group, say that they did not.
    expect(said.length).toBeLessThan(1000);
  });

  it('is stuck on a full disk, and loses nothing there', async () => {
    mkdirSync(folder);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'gaia-log-test', folder]);
    try {
      const child = spawn(process.execPath, [program, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
      let durable = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        if (line.startsWith('durable')) durable = numberIn(line);
        if (line.startsWith('stuck')) child.kill('SIGKILL');
      }
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      expect(durable).toBeGreaterThan(1000);
      expect(readdirSync(folder).length).toBeGreaterThan(5);
      const { said } = run({}, 1);
      expect(numberIn(said[0])).toBeGreaterThanOrEqual(durable);
    } finally {
      execFileSync('umount', ['--lazy', folder]);
    }
  });
});
