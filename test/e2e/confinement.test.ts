/** A guest that broke out of its QEMU would find: a user of its own, no rights, no files, no network. */
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VmStatus } from '../../vmm/index.ts';
import { confinedCommand, vmUid } from '../../vmm/io/qemu/confinement.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { TestVm } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`a QEMU is confined (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;
  let pids: number[];

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('confined', namespace);
    const status: VmStatus = await vm.start();
    pids = status.replicas.flatMap((replica) => replica.status?.qemuPid ?? []);
  });

  afterAll(async () => {
    await vm.remove();
    await namespace.remove();
  });

  const statusOf = (pid: number) =>
    new Map(
      readFileSync(`/proc/${pid}/status`, 'utf8')
        .split('\n')
        .map((line) => line.split(/:\s*/, 2) as [string, string]),
    );

  it('runs under a user id of its own, without capabilities, under seccomp', () => {
    expect(pids.length).toBe(2);
    for (const pid of pids) {
      const status = statusOf(pid);
      const ids = [...(status.get('Uid') ?? '').split('\t'), ...(status.get('Gid') ?? '').split('\t')];
      expect(new Set(ids).size).toBe(1);
      expect(Number(ids[0])).toBeGreaterThanOrEqual(1_706_000_000);
      expect(status.get('Groups')?.trim()).toBe('');
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
        expect([set, status.get(set)]).toEqual([set, '0000000000000000']);
      expect([status.get('NoNewPrivs'), status.get('Seccomp')]).toEqual(['1', '2']);
    }
  });

  it('sees /usr, two devices and its own files, and no network', () => {
    for (const pid of pids) {
      for (const space of ['mnt', 'net', 'ipc', 'uts'])
        expect(readlinkSync(`/proc/${pid}/ns/${space}`)).not.toBe(readlinkSync(`/proc/self/ns/${space}`));
      const entries = readdirSync(`/proc/${pid}/root`);
      for (const hidden of ['etc', 'root', 'home', 'proc', 'sys', 'run', 'boot', 'old'])
        expect(entries).not.toContain(hidden);
      expect(readdirSync(`/proc/${pid}/root/dev`).sort()).toEqual(['null', 'urandom']);
      const interfaces = readFileSync(`/proc/${pid}/net/dev`, 'utf8').match(/^ *\S+:/gm);
      expect(interfaces?.map((name) => name.trim())).toEqual(['lo:']);
    }
  });

  it.skipIf(!existsSync('/dev/kvm'))(
    'one that is to run under KVM has that device, and no other has',
    async () => {
      const rootFolder = mkdtempSync(join(tmpdir(), 'gaia-confined-'));
      const opens = async (devices: string[]) => {
        const confinement = { uid: vmUid(999), rootFolder, readable: [], writable: [], devices };
        const [command, words] = confinedCommand(confinement, '/usr/bin/test', ['-w', '/dev/kvm']);
        return (await execa(command, words, { reject: false })).exitCode;
      };
      expect(await opens(['/dev/kvm'])).toBe(0);
      expect(await opens([])).toBe(1);
      rmSync(rootFolder, { recursive: true });
    },
  );

  it('what agents keep is open to their user alone', () => {
    const entries = vm.folders().flatMap((folder) => walk(folder));
    expect(entries.length).toBeGreaterThan(10);
    for (const path of entries) {
      // A file that is replaced by a rename has another name for a moment.
      const mode = lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0;
      expect([path, (mode & 0o077).toString(8)]).toEqual([path, '0']);
    }
  });
});

function walk(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? [path, ...walk(path)] : [path];
  });
}
