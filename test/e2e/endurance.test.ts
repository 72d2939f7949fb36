/**
 * A long time in short: an hour of load with a kill every minute. No client sees anything, what is never killed needs no
 * more memory at the end than before, and the disk stays within its bounds.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LoadProcess } from '../framework/load-process.ts';
import type { LoadReport } from '../framework/load-program.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { backupOf, hasReturned, leaderOf, replicaOf, signalReplica, TestVm } from '../framework/test-vm.ts';
import type { VmStatus } from '../../vmm/index.ts';

const minutes = Number(process.env['GAIA_SOAK_MINUTES'] ?? '60');
const why =
  process.env['GAIA_SOAK'] === undefined
    ? 'runs with npm run soak: it takes an hour'
    : NetworkNamespace.whyImpossible();
const kills = ['leader', 'backup'] as const;
/** Of memory, in the second half against the first one, when caches are full. */
const growthMax = 1.1;
/** What a replica's log may hold, and some for what is under way: see docs/durable-log.md. */
const diskBytesMax = 1.1 * 2 ** 30;

let namespace: NetworkNamespace;
let vm: TestVm;

beforeAll(async () => {
  if (why !== undefined) return;
  namespace = await NetworkNamespace.create();
  vm = await TestVm.prepare('long', namespace);
});

afterAll(async () => {
  if (why !== undefined) return;
  await vm.remove();
  await namespace.remove();
});

function residentBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes) * 1024;
}

function bytesBelow(folder: string): number {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + 512 * statSync(join(entry.parentPath, entry.name)).blocks, 0);
}

/** Kills the leader or the backup, whose turn it is, and waits until the VM is PROTECTED again. */
async function kill(turn: number): Promise<string> {
  const before = await vm.until(({ protection }) => protection === 'PROTECTED');
  const role = kills[turn % kills.length] ?? 'leader';
  const struck = role === 'leader' ? leaderOf(before) : backupOf(before);
  const { name } = struck;
  signalReplica(struck, 'SIGKILL');
  await vm.until((now) => hasReturned(before, now, name, 'host'));
  return `${role} ${name} killed`;
}

const standbyPid = (status: VmStatus): number => replicaOf(status, 'gamma').status?.agentPid ?? 0;

it.skipIf(why !== undefined)(
  `serves for ${minutes} minutes with a kill in each (${why ?? 'real guest'})`,
  { timeout: (minutes + 10) * 60_000 },
  async () => {
    const started = await vm.start();
    const standby = standbyPid(started);
    const words = [started.address, String(started.port), '8'];
    const load = await LoadProcess.start<LoadReport>(namespace, 'memcached-load.js', words);
    const memory: number[] = [];
    for (let minute = 1; minute <= minutes; minute++) {
      const nextMinute = new Promise((resolve) => setTimeout(resolve, 60_000)); // One kill a minute.
      const what = await kill(minute);
      await nextMinute;
      memory.push(residentBytes(standby));
      const disk = vm.folders().map(bytesBelow);
      console.log(
        `minute ${minute}: ${what}; the standby's agent ${((memory.at(-1) ?? 0) / 1e6).toFixed(0)} MB, ` +
          `on disk ${disk.map((bytes) => (bytes / 1e6).toFixed(0)).join(' + ')} MB`,
      );
      for (const bytes of disk) expect(bytes).toBeLessThan(3 * diskBytesMax);
    }
    const report = await load.stop();
    console.log(`longest reply ${report.longestReplyMs.toFixed(0)} ms, ${report.operations} operations`);
    expect([report.errors, report.wrongValues]).toEqual([[], []]);
    const end = await vm.status();
    expect(standbyPid(end)).toBe(standby);
    expect(leaderOf(end).status).toMatchObject({ mismatches: 0, divergentPages: 0 });
    const half = memory.length >> 1;
    expect(Math.max(...memory.slice(half))).toBeLessThan(growthMax * Math.max(...memory.slice(0, half)));
  },
);
