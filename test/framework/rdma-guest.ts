/**
 * A guest with a software RDMA device (rdma_rxe, "Soft-RoCE") in which this project's transport runs over verbs: this
 * machine's kernel need not know RDMA. Debian's generic kernel, libfabric and rdma-core, this Node and this build.
 * Guarantee: everything lies in the folder that was given, and the guest ends with `run`.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { defaultCacheFolder } from '../../images/build-image.ts';
import { writeCpioArchive } from '../../images/cpio-archive.ts';
import { downloadPackages } from '../../images/debian-packages.ts';
import { consoleDevice } from '../../images/guest-tree.ts';
import { projectFolder } from '../../vmm/io/project-folder.ts';

/** In loading order. */
const modules = [
  ...['crc32_generic', 'configfs', 'ib_core', 'ib_cm', 'iw_cm', 'rdma_cm', 'ib_uverbs', 'rdma_ucm'],
  ...['udp_tunnel', 'ip6_udp_tunnel', 'rdma_rxe', 'dummy'],
];
const packages = ['linux-image-amd64', 'busybox-static', 'iproute2', 'libfabric1', 'ibverbs-providers'];
export const guestAddress = '10.88.0.1';
const memory = '1536M';
/** The endpoint's queues are sized for thousands of peers; a small guest has no memory to pin for that. */
const environment = 'FI_UNIVERSE_SIZE=4 FI_OFI_RXM_MSG_TX_SIZE=128 FI_OFI_RXM_MSG_RX_SIZE=128';
/** libfabric links it, and a maintainer script would have put it into the linker's way. */
const psmFolder = 'usr/lib/libpsm1';

export interface RdmaGuest {
  readonly kernel: string;
  readonly initrd: string;
}

/** Builds it in `folder`, to run `commands` one after the other in the project's folder. */
export async function buildRdmaGuest(folder: string, commands: readonly string[]): Promise<RdmaGuest> {
  const files = await downloadPackages({
    folder: join(defaultCacheFolder(), 'packages'),
    packages,
    packagesLeftOut: [],
    refresh: false,
    onText: () => undefined,
  });
  const root = join(folder, 'root');
  const kernelTree = join(folder, 'kernel');
  for (const { name, file } of files) {
    const target = name.startsWith('linux-image-') ? kernelTree : root;
    mkdirSync(target, { recursive: true });
    execFileSync('dpkg-deb', ['-x', file, target]);
  }
  installModules(kernelTree, root);
  linkLibraries(root);
  installProject(root);
  installInit(root, commands);
  const initrd = join(folder, 'initrd');
  await writeCpioArchive(root, initrd, { devices: [consoleDevice] });
  const boot = join(kernelTree, 'boot');
  const kernel = readdirSync(boot).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error('The kernel package holds no kernel');
  return { kernel: join(boot, kernel), initrd };
}

function installModules(kernelTree: string, root: string): void {
  const folder = join(kernelTree, 'lib/modules');
  const all = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  mkdirSync(join(root, 'modules'));
  for (const module of modules) {
    const file = all.find((path) => basename(path).replaceAll('-', '_') === `${module}.ko`);
    if (file === undefined) throw new Error(`The kernel has no module ${module}`);
    cpSync(join(folder, file), join(root, 'modules', `${module}.ko`));
  }
}

/** This Node with its libraries, and what was built of this project. */
function installProject(root: string): void {
  const node = realpathSync(process.execPath);
  cpSync(node, join(root, 'usr/bin/node'));
  for (const [, library] of execFileSync('ldd', [node], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g)) {
    if (library === undefined) continue;
    const target = join(root, library);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(realpathSync(library), target);
  }
  const project = projectFolder();
  for (const path of ['dist', 'package.json', 'native/CMakeLists.txt', 'native/build/Release'])
    cpSync(join(project, path), join(root, 'gaia', path), { recursive: true });
}

/** What maintainer scripts would have done. */
function linkLibraries(root: string): void {
  for (const file of readdirSync(join(root, psmFolder)).filter((name) => name.includes('.so.'))) {
    const soname = /^.*\.so\.\d+/.exec(file)?.[0] ?? file;
    symlinkSync(`/${psmFolder}/${file}`, join(root, 'usr/lib/x86_64-linux-gnu', soname));
  }
}

function installInit(root: string, commands: readonly string[]): void {
  for (const name of ['proc', 'sys', 'dev', 'tmp', 'run']) mkdirSync(join(root, name), { recursive: true });
  const busybox = (words: string) => `/bin/busybox ${words}`;
  const script = [
    '#!/bin/busybox sh',
    ...['proc proc /proc', 'sysfs sysfs /sys', 'devtmpfs dev /dev'].map((mount) =>
      busybox(`mount -t ${mount}`),
    ),
    busybox('mkdir -p /dev/shm /dev/pts'),
    busybox('mount -t tmpfs tmpfs /dev/shm'),
    busybox('mount -t tmpfs tmpfs /tmp'),
    ...modules.map((module) => busybox(`insmod /modules/${module}.ko`)),
    'export PATH=/usr/sbin:/sbin:/usr/bin:/bin HOME=/tmp',
    'ip link set lo up',
    `ip address add ${guestAddress}/24 dev dummy0`,
    'ip link set dummy0 up',
    'rdma link add rxe0 type rxe netdev dummy0',
    'rdma link',
    'cd /gaia',
    `export ${environment}`,
    ...commands,
    busybox('poweroff -f'),
  ];
  writeFileSync(join(root, 'init'), `${script.join('\n')}\n`, { mode: 0o755 });
  const shell = join(root, 'bin/sh');
  try {
    symlinkSync('busybox', shell);
  } catch {
    // A package brought one.
  }
}

/** Boots the guest and gives every line it prints; it ends by itself, or after `limitMs` by force. */
export async function runRdmaGuest(
  qemu: string,
  guest: RdmaGuest,
  limitMs: number,
  onLine: (line: string) => void,
): Promise<void> {
  const child = spawn(
    qemu,
    [
      ...['-M', 'pc', '-accel', 'tcg', '-cpu', 'max', '-smp', '2', '-m', memory],
      ...[
        '-kernel',
        guest.kernel,
        '-initrd',
        guest.initrd,
        '-append',
        'console=ttyS0 panic=-1 quiet audit=0',
      ],
      ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  createInterface({ input: child.stdout }).on('line', onLine);
  try {
    await once(child, 'close');
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
  }
}
