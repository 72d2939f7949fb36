/** What cannot be started is refused in one sentence, and leaves nothing behind. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { folders, projectFolder } from '../../vmm/index.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';

const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`gaia-vm refuses (${whyImpossible ?? 'by name'})`, () => {
  let namespace: NetworkNamespace;
  let root: string;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
    root = await mkdtemp(join(tmpdir(), 'gaia-'));
    await symlink(folders().cache, join(root, 'cache'));
  });

  afterAll(async () => {
    await namespace.remove();
    await rm(root, { recursive: true, force: true });
  });

  const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');

  async function gaiaVmIn(gaiaRoot: string, ...words: string[]) {
    const [command, args] = namespace.inside(process.execPath, [entry, ...words]);
    return execa(command, args, { env: { GAIA_ROOT: gaiaRoot }, reject: false });
  }

  const gaiaVm = (...words: string[]) => gaiaVmIn(root, ...words);

  it.each([
    ['two replicas', ['start', '--replicas', '2'], 1, /2 replicas are not possible/],
    ['four replicas', ['start', '--replicas', '4'], 1, /4 replicas are not possible/],
    ['a name with a slash', ['start', '--name', '../x'], 1, /cannot name a VM/],
    ['too little memory', ['start', '--memory', '64M'], 1, /needs \d+ MiB of memory, not 64 MiB/],
    [
      'more memory than there is',
      ['start', '--memory', '4000G'],
      1,
      /need \d+ MiB of memory, and \d+ MiB are available here/,
    ],
    [
      'a config with an unknown key',
      ['start', '--config', 'CONFIG'],
      2,
      /unknown key "memmory": the keys are name, /,
    ],
    [
      'a config that is not there',
      ['start', '--config', '/nowhere.yaml'],
      2,
      /nowhere.yaml cannot be read \(ENOENT\)/,
    ],
    [
      'lockstep with two vCPUs',
      ['start', '--mode', 'lockstep', '--vcpus', '2'],
      1,
      /Lockstep runs one vCPU, not 2/,
    ],
    ['no vCPU', ['start', '--vcpus', '0', '--accel', 'tcg'], 1, /0 vCPUs are not possible/],
    ['a mode that is none', ['start', '--mode', 'fast'], 2, /vsmr.*lockstep.*checkpoint/],
    ['memory that is no size', ['start', '--memory', 'lots'], 2, /"lots" is no amount of memory/],
    ['a kernel that is none', ['start', '--kernel', '/etc/hostname'], 1, /is no Linux kernel/],
    ['an initrd without its kernel', ['start', '--initrd', '/etc/hostname'], 2, /kernel/],
    ['an unknown image', ['start', '--image', 'nonsense'], 1, /nonsense/],
    ['the status of an unknown VM', ['status', 'nobody'], 1, /There is no VM "nobody"/],
    ['to stop an unknown VM', ['stop', 'nobody'], 1, /There is no VM "nobody"/],
    ['the events of an unknown VM', ['events', 'nobody'], 1, /There is no VM "nobody"/],
  ])('%s, and leaves no bridge and no folder', async (_what, words, exitCode, message) => {
    const config = join(root, 'vm.yaml');
    await writeFile(config, 'name: web1\nmemmory: 1G\n');
    const result = await gaiaVm(...words.map((word) => (word === 'CONFIG' ? config : word)));
    expect(result.stderr).toMatch(message);
    expect(result.exitCode).toBe(exitCode);
    expect(await namespace.run('ip', ['-o', 'link', 'show', 'type', 'bridge'])).toBe('');
    expect(existsSync(join(root, 'lib', 'web1'))).toBe(false);
  });

  it('to start without /dev/net/tun, with the command that tells what the machine lacks', async () => {
    const hidden = 'mount -t tmpfs none /dev/net && exec "$0" "$1" start';
    const [command, args] = namespace.inside('unshare', ['-m', 'sh', '-c', hidden, process.execPath, entry]);
    const result = await execa(command, args, { env: { GAIA_ROOT: root }, reject: false });
    expect(result.stderr).toMatch(/\/dev\/net\/tun cannot be opened \(ENOENT\).*run ".* check"/);
    expect(result.exitCode).toBe(6);
    expect(existsSync(join(root, 'lib', 'web1'))).toBe(false);
  });

  it('a QEMU of another build, and names the command that makes the right one', async () => {
    const other = await mkdtemp(join(tmpdir(), 'gaia-'));
    try {
      const build = join(other, 'cache', 'qemu', '0123456789abcdef');
      await mkdir(build, { recursive: true });
      await symlink(join(folders().cache, 'images'), join(other, 'cache', 'images'));
      await writeFile(join(build, 'qemu-system-x86_64'), '#!/bin/sh\nexit 0\n');
      await chmod(join(build, 'qemu-system-x86_64'), 0o755);
      const result = await gaiaVmIn(other, 'start');
      expect(result.stderr).toMatch(/patched QEMU.*run ".*qemu build"/);
      expect(result.exitCode).toBe(6);
      expect(existsSync(join(other, 'lib', 'web1'))).toBe(false);
    } finally {
      await rm(other, { recursive: true, force: true });
    }
  });

  it('folders so deep that no socket fits them', async () => {
    const deep = join(root, 'x'.repeat(100));
    await mkdir(deep);
    await symlink(folders().cache, join(deep, 'cache'));
    const result = await gaiaVmIn(deep, 'start');
    expect(result.stderr).toMatch(/The socket path .* has \d+ bytes, and Linux allows 107/);
    expect(result.exitCode).toBe(1);
  });

  it('a second VM of the same name, and lets the first one be; beside it another name starts', async () => {
    try {
      expect((await gaiaVm('start', '--name', 'one')).exitCode).toBe(0);
      const again = await gaiaVm('start', '--name', 'one');
      expect(again.stderr).toMatch(/VM one exists already/);
      expect(again.exitCode).toBe(1);
      expect((await gaiaVm('start', '--name', 'two')).exitCode).toBe(0);
      for (const name of ['one', 'two']) expect((await gaiaVm('wait', name)).exitCode).toBe(0);
      expect((await gaiaVm('list')).stdout).toMatch(/one +PROTECTED[^]*two +PROTECTED/);
    } finally {
      await gaiaVm('stop', 'one');
      await gaiaVm('stop', 'two');
    }
    expect(await namespace.run('ip', ['-o', 'link', 'show', 'type', 'bridge'])).toBe('');
    expect((await gaiaVm('list')).stdout).toMatch(/No VM here/);
  });
});
