/**
 * Lays out the root file system of a guest in a folder: unpacked packages without what no guest reads, the
 * recipe's files, the kernel modules in loading order, and our own init. Needs no root: nothing is mounted,
 * no maintainer script runs, and owners exist only in the archive made of the folder.
 */

import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import type { DebianPackage } from './debian-packages.ts';
import { ImageError } from './error.ts';
import { imagesDataFile, type Recipe } from './recipe.ts';
import { runTool, ToolFailedError } from './run-tool.ts';

/** What every image is made of beside the packages of its recipe. */
const kernelPackage = 'linux-image-cloud-amd64';
export const basePackages = ['busybox-static', kernelPackage];

/** In loading order. Both buses are there, so one image boots on every machine profile. */
const modulesOfEveryImage = [
  ...['virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_mmio'],
  ...['failover', 'net_failover', 'virtio_net', 'virtio_blk'],
  ...['evdev', 'button'],
];

/** Nothing in a guest reads these. */
const pathsOfNoUse = [
  ...['doc', 'man', 'info', 'locale', 'lintian', 'bug', 'bash-completion', 'doc-base', 'gdb', 'i18n'],
  ...['icons', 'applications', 'pixmaps', 'menu', 'metainfo', 'apport', 'initramfs-tools', 'zsh'],
]
  .map((name) => `usr/share/${name}`)
  .concat([
    ...['usr/include', 'usr/lib/systemd', 'usr/lib/tmpfiles.d', 'usr/lib/sysusers.d', 'usr/lib/pkgconfig'],
    ...['usr/lib/x86_64-linux-gnu/gconv', 'usr/lib/x86_64-linux-gnu/pkgconfig', 'lib/systemd', 'lib/udev'],
    ...['etc/init.d', 'etc/init', 'etc/cron.d', 'etc/cron.daily', 'etc/logrotate.d', 'etc/ufw'],
    ...['etc/systemd', 'etc/apparmor.d', 'etc/network', 'etc/kernel'],
  ]);

/** The kernel opens this before init has mounted anything. */
export const consoleDevice = { path: 'dev/console', mode: 0o600, major: 5, minor: 1 };

export interface GuestTree {
  readonly kernel: string;
  readonly root: string;
}

/** Fills `folder`, which must be empty, and says where kernel and root file system are in it. */
export async function layOutGuest(
  folder: string,
  recipe: Recipe,
  packages: readonly DebianPackage[],
  signal?: AbortSignal,
): Promise<GuestTree> {
  const root = join(folder, 'root');
  const kernelTree = join(folder, 'kernel');
  await mkdir(root, { recursive: true });
  const isKernel = (name: string): boolean => name.startsWith('linux-image-');
  for (const { name, file } of packages) {
    await unpack(file, isKernel(name) ? kernelTree : root, signal);
  }
  for (const path of [...pathsOfNoUse, ...recipe.drop]) {
    await rm(join(root, path), { recursive: true, force: true });
  }
  await installModules(kernelTree, root, recipe.modules);
  await installInit(root, recipe);
  for (const { path, mode, contents } of recipe.files) await install(root, path, contents, mode);
  return { kernel: await findKernel(kernelTree), root };
}

async function unpack(file: string, target: string, signal?: AbortSignal): Promise<void> {
  try {
    await runTool({ program: 'dpkg-deb', args: ['-x', file, target], folder: target, signal });
  } catch (error) {
    if (!(error instanceof ToolFailedError)) throw error;
    throw new ImageError(
      'GAIA_IMAGE_PACKAGE',
      `${file} cannot be unpacked: remove it and build the image again`,
      { cause: error },
    );
  }
}

async function findKernel(kernelTree: string): Promise<string> {
  const boot = join(kernelTree, 'boot');
  const names = (await readdir(boot)).filter((name) => name.startsWith('vmlinuz-'));
  const [name] = names;
  if (name === undefined || names.length > 1) {
    throw new ImageError(
      'GAIA_IMAGE_PACKAGE',
      `The packages hold ${names.length} kernels instead of one: name no kernel package in the recipe`,
    );
  }
  return join(boot, name);
}

async function installModules(kernelTree: string, root: string, extra: readonly string[]): Promise<void> {
  const files = await readdir(join(kernelTree, 'lib/modules'), { recursive: true });
  const byName = new Map(
    files
      .filter((file) => file.endsWith('.ko'))
      .map((file) => [moduleName(basename(file, '.ko')), join(kernelTree, 'lib/modules', file)]),
  );
  const names = [...modulesOfEveryImage, ...extra].map(moduleName);
  await mkdir(join(root, 'lib/modules'), { recursive: true });
  for (const name of names) {
    const file = byName.get(name);
    if (file === undefined) {
      throw new ImageError(
        'GAIA_IMAGE_RECIPE',
        `The kernel package has no module "${name}": correct "modules" in the recipe`,
      );
    }
    await copyFile(file, join(root, 'lib/modules', `${name}.ko`));
  }
  await install(root, 'etc/gaia/modules', `${names.join('\n')}\n`);
}

/** The kernel treats the two signs as one. */
function moduleName(name: string): string {
  return name.replaceAll('-', '_');
}

async function installInit(root: string, recipe: Recipe): Promise<void> {
  for (const path of ['dev', 'proc', 'sys', 'run', 'tmp', 'root', 'var/log', 'var/lib', 'usr/bin']) {
    await mkdir(join(root, path), { recursive: true });
  }
  await copyFile(imagesDataFile('guest', 'init.sh'), join(root, 'init'));
  await chmod(join(root, 'init'), 0o755);
  await symlink('busybox', join(root, 'bin/sh'));
  await symlink('/run', join(root, 'var/run'));
  const users = [{ name: 'root', id: 0 }, ...recipe.users, { name: 'nobody', id: 65_534 }];
  const passwd = users.map(({ name, id }) => `${name}:x:${id}:${id}::${id === 0 ? '/root' : '/'}:/bin/sh\n`);
  const groups = users.map(({ name, id }) => `${name === 'nobody' ? 'nogroup' : name}:x:${id}:\n`);
  await install(root, 'etc/passwd', passwd.join(''));
  await install(root, 'etc/group', groups.join(''));
  await install(root, 'etc/hostname', `${recipe.name}\n`);
  await install(root, 'etc/hosts', `127.0.0.1 localhost ${recipe.name}\n`);
  await install(root, 'etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files\n');
  await install(root, 'etc/gaia/acpi/PWRF/00000080', '#!/bin/sh\nkill -USR1 1\n', 0o755);
  await install(root, 'etc/gaia/service.sh', serviceScript(recipe));
}

/** The line by which the host knows that the service answers. */
export function readyMarkerOf(name: string): string {
  return `GAIA-READY ${name}`;
}

function serviceScript(recipe: Recipe): string {
  return [
    `gaia_name=${recipe.name}`,
    `gaia_ready_marker='${readyMarkerOf(recipe.name)}'`,
    'gaia_prepare() (',
    'set -e',
    ...recipe.prepare,
    ')',
    'gaia_start() {',
    recipe.start,
    '}',
    'gaia_ready() {',
    recipe.ready,
    '}',
    '',
  ].join('\n');
}

async function install(root: string, path: string, contents: string | Buffer, mode = 0o644): Promise<void> {
  const file = join(root, path);
  await mkdir(dirname(file), { recursive: true });
  // A package may have put a symbolic link there, which must not be written through.
  await rm(file, { force: true });
  await writeFile(file, contents);
  await chmod(file, mode);
}
