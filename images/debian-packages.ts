/**
 * Downloads Debian packages with everything they depend on, whatever is installed on this machine.
 * apt runs with lists, cache and package status of its own in the cache folder, so neither the machine's
 * state nor a second build is disturbed. Guarantee: every file handed back has the length and the SHA-256
 * that the signed package index names.
 */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { readBookwormSources } from './apt-sources.ts';
import { explainWriteError, ImageError } from './error.ts';
import { runTool, ToolFailedError } from './run-tool.ts';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly sha256: string;
  readonly file: string;
}

export interface PackageRequest {
  /** Holds lists/ and archives/ between builds. */
  readonly folder: string;
  readonly packages: readonly string[];
  /** Count as installed, so that neither they nor what only they need is downloaded. */
  readonly packagesLeftOut: readonly string[];
  /** Fetch the package index even if the one at hand is young. */
  readonly refresh: boolean;
  readonly onText: (text: string, fraction?: number) => void;
  readonly signal?: AbortSignal | undefined;
  /** Where the machine's apt configuration is; /etc/apt outside tests. */
  readonly aptFolder?: string | undefined;
}

/** A day: security updates reach the next build, and builds on one day need no network. */
const indexAgeMsMax = 24 * 60 * 60 * 1000;
/** Another build may hold the lock for as long as a slow download takes. */
const lockTimeoutSeconds = 900;

/** What packages only need for being installed or for a machine with an init system; an image has neither. */
const packagesNoImageNeeds = [
  ...['adduser', 'base-passwd', 'debconf', 'debconf-2.0', 'debianutils', 'dpkg', 'init-system-helpers'],
  ...['initramfs-tools', 'initramfs-tools-core', 'kmod', 'libpam-runtime', 'libpam-systemd', 'linux-base'],
  ...['linux-initramfs-tool', 'lsb-base', 'passwd', 'perl', 'perl-base', 'systemd', 'systemd-sysv'],
  ...['sysvinit-utils', 'tar', 'ucf', 'udev', 'usrmerge', 'usr-is-merged'],
  ...['bsdutils', 'coreutils', 'findutils', 'gawk', 'grep', 'gzip', 'hostname', 'mawk', 'mount', 'procps'],
  ...['psmisc', 'sed', 'util-linux'],
];

/** Resolves the closure of `packages`, downloads what is missing, and lists it sorted by name. */
export async function downloadPackages(request: PackageRequest): Promise<DebianPackage[]> {
  try {
    const apt = await preparePrivateApt(request);
    const fetched = await refreshIndex(request, apt);
    try {
      return await resolveAndDownload(request, apt);
    } catch (error) {
      // An index from yesterday may name package versions that the mirror has replaced since.
      if (fetched || !(error instanceof ImageError)) throw error;
      if (error.code !== 'GAIA_IMAGE_NETWORK' && error.code !== 'GAIA_IMAGE_PACKAGE') throw error;
      await refreshIndex({ ...request, refresh: true }, apt);
      return await resolveAndDownload(request, apt);
    }
  } catch (error) {
    throw explainWriteError(error, request.folder);
  }
}

interface PrivateApt {
  readonly options: readonly string[];
  readonly archives: string;
  readonly lists: string;
  readonly lock: string;
}

async function preparePrivateApt(request: PackageRequest): Promise<PrivateApt> {
  const { folder } = request;
  const archives = join(folder, 'archives');
  const lists = join(folder, 'lists');
  const nothing = join(folder, 'nothing');
  for (const path of [join(archives, 'partial'), join(lists, 'partial'), join(nothing, 'partial')]) {
    await mkdir(path, { recursive: true });
  }
  const sources = await readBookwormSources(request.aptFolder ?? '/etc/apt');
  if (sources === '') {
    throw new ImageError(
      'GAIA_IMAGE_SOURCES',
      'No Debian bookworm package source is configured: add one to /etc/apt/sources.list.d',
    );
  }
  await replaceFile(join(folder, 'bookworm.sources'), sources);
  await replaceFile(join(folder, 'preferences'), preferences);
  const leftOut = [...new Set([...packagesNoImageNeeds, ...request.packagesLeftOut])].sort();
  const status = leftOut.map(namedAsInstalled).join('\n');
  const statusFile = join(folder, `status-${createHash('sha256').update(status).digest('hex').slice(0, 16)}`);
  await replaceFile(statusFile, status);
  const config = join(folder, 'apt.conf');
  await replaceFile(config, aptConfiguration(folder));
  return {
    options: ['-c', config, '-o', `Dir::State::status=${statusFile}`],
    archives,
    lists,
    lock: join(folder, 'lock'),
  };
}

/** Packages of any other origin in the machine's sources are never chosen. */
const preferences = [
  'Package: *\nPin: release o=Debian\nPin-Priority: 500\n',
  'Package: *\nPin: release o=*\nPin-Priority: -1\n',
].join('\n');

/** Named as installed, in a version above all others: it satisfies every dependency, also one on any architecture. */
function namedAsInstalled(name: string): string {
  return [
    `Package: ${name}`,
    'Status: install ok installed',
    'Priority: optional',
    'Section: misc',
    'Maintainer: none',
    'Architecture: amd64',
    'Multi-Arch: allowed',
    'Version: 9999:9999',
    'Description: left out of the image',
    '',
  ].join('\n');
}

/** apt reads this after the machine's own configuration, which keeps its proxies and keys. */
function aptConfiguration(folder: string): string {
  return [
    '#clear APT::Update::Post-Invoke;',
    '#clear APT::Update::Post-Invoke-Success;',
    '#clear APT::Architectures;',
    '#clear APT::Default-Release;',
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    'APT::Install-Recommends "0";',
    'APT::Install-Suggests "0";',
    'APT::Sandbox::User "root";',
    'APT::Update::Error-Mode "any";',
    'APT::Keep-Downloaded-Packages "1";',
    'Acquire::Languages "none";',
    'Acquire::ForceHash "SHA256";',
    'Acquire::Retries "1";',
    'Acquire::http::Timeout "20";',
    'Acquire::https::Timeout "20";',
    `Dir::State "${folder}";`,
    `Dir::State::lists "${folder}/lists";`,
    `Dir::State::extended_states "${folder}/extended-states";`,
    `Dir::Cache "${folder}";`,
    `Dir::Cache::archives "${folder}/archives";`,
    `Dir::Cache::pkgcache "${folder}/packages.bin";`,
    `Dir::Cache::srcpkgcache "${folder}/sources.bin";`,
    `Dir::Etc::sourcelist "${folder}/bookworm.sources";`,
    'Dir::Etc::sourceparts "/dev/null";',
    `Dir::Etc::preferences "${folder}/preferences";`,
    'Dir::Etc::preferencesparts "/dev/null";',
    '',
  ].join('\n');
}

/** Resolves with whether the index was fetched now. Without network an old index is good enough. */
async function refreshIndex(request: PackageRequest, apt: PrivateApt): Promise<boolean> {
  const age = await indexAgeMs(apt.lists);
  if (!request.refresh && age !== undefined && age < indexAgeMsMax) return false;
  const onFraction = (fraction?: number): void =>
    request.onText('fetching the Debian package index', fraction);
  onFraction();
  try {
    await runApt(request, apt, ['update', '-qq'], onFraction);
  } catch (error) {
    const usable = age !== undefined && error instanceof ImageError && error.code === 'GAIA_IMAGE_NETWORK';
    if (!usable) throw error;
    request.onText('no network: using the Debian package index at hand');
    return true;
  }
  await replaceFile(join(apt.lists, 'fetched'), '');
  return true;
}

async function indexAgeMs(lists: string): Promise<number | undefined> {
  const names = await readdir(lists);
  if (!names.includes('fetched') || !names.some((name) => /_Packages(?:\.|$)/.test(name))) return undefined;
  return Date.now() - (await stat(join(lists, 'fetched'))).mtimeMs;
}

async function resolveAndDownload(request: PackageRequest, apt: PrivateApt): Promise<DebianPackage[]> {
  request.onText('resolving packages');
  const install = ['install', '-y', ...request.packages];
  // apt does not print what it already has, so it looks into a folder that is always empty.
  const nothing = ['-o', `Dir::Cache::archives=${join(request.folder, 'nothing')}`];
  const printed = await runApt(request, apt, [...nothing, '--print-uris', '-qq', ...install]);
  const wanted = printed.split('\n').flatMap((line) => parsePrintedUri(line, apt.archives));
  if (!(await allPresent(wanted))) {
    const onFraction = (fraction: number): void => request.onText('downloading packages', fraction);
    onFraction(0);
    await runApt(request, apt, ['--download-only', '-qq', ...install], onFraction);
    if (!(await allPresent(wanted))) {
      throw new ImageError(
        'GAIA_IMAGE_NETWORK',
        'Downloaded packages do not match the package index: try again, and check any proxy in between',
      );
    }
  }
  return wanted.sort((a, b) => (a.name < b.name ? -1 : 1));
}

interface WantedPackage extends DebianPackage {
  readonly bytes: number;
}

/** Lines look like 'URI' NAME_VERSION_ARCHITECTURE.deb BYTES SHA256:HASH. */
function parsePrintedUri(line: string, archives: string): WantedPackage[] {
  const match = /^'[^']+' ((\S+?)_(\S+?)_[^_\s]+\.deb) (\d+) SHA256:([0-9a-f]{64})/.exec(line);
  const [, file = '', name = '', version = '', bytes = '0', sha256 = ''] = match ?? [];
  if (match === null) return [];
  const decoded = decodeURIComponent(version);
  return [{ name, version: decoded, sha256, file: join(archives, file), bytes: Number(bytes) }];
}

/** Removes files of wrong contents, which apt would otherwise take for finished downloads. */
async function allPresent(wanted: readonly WantedPackage[]): Promise<boolean> {
  let complete = true;
  for (const { file, bytes, sha256 } of wanted) {
    const found = await stat(file).catch(() => undefined);
    if (found?.size === bytes && (await sha256OfFile(file)) === sha256) continue;
    if (found !== undefined) await rm(file);
    complete = false;
  }
  return complete;
}

/** Hexadecimal. */
export async function sha256OfFile(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function runApt(
  request: PackageRequest,
  apt: PrivateApt,
  args: readonly string[],
  onFraction?: (fraction: number) => void,
): Promise<string> {
  // apt itself fails at once when a second apt holds its lists or archives; flock makes it wait.
  const lock = ['--wait', String(lockTimeoutSeconds), apt.lock];
  try {
    return await runTool({
      program: 'flock',
      args: [...lock, 'apt-get', ...apt.options, '-o', 'APT::Status-Fd=3', ...args],
      signal: request.signal,
      folder: request.folder,
      onStatus: (text) => {
        const percent = /dlstatus:\d+:([\d.]+):[^\n]*\n$/.exec(text)?.[1];
        if (percent !== undefined) onFraction?.(Number(percent) / 100);
      },
    });
  } catch (error) {
    throw error instanceof ToolFailedError ? explainAptFailure(error) : error;
  }
}

function explainAptFailure(error: ToolFailedError): ImageError {
  const reasons = error.stderr
    .split('\n')
    .filter((line) => line.startsWith('E: '))
    .map((line) => line.slice('E: '.length).replace(/\.$/, ''));
  const reason = reasons[0] ?? error.message;
  const unknown = /Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate/.exec(
    error.stderr,
  );
  if (unknown !== null || /unmet dependencies|held broken packages/.test(error.stderr)) {
    const what = unknown?.[1] ?? unknown?.[2];
    const detail = what === undefined ? reason : `Debian bookworm has no package "${what}"`;
    return new ImageError('GAIA_IMAGE_PACKAGE', `${detail}: correct "packages" in the recipe`, {
      cause: error,
    });
  }
  return new ImageError(
    'GAIA_IMAGE_NETWORK',
    `Debian packages cannot be fetched (${reason}): check the network and the proxy in /etc/apt/apt.conf.d`,
    { cause: error },
  );
}

/** Readers see the old contents or the new, never a part; an equal file is left alone. */
async function replaceFile(file: string, contents: string): Promise<void> {
  const temporary = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  await writeFile(temporary, contents);
  await rename(temporary, file);
}
