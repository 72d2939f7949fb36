/**
 * Fetches Debian's QEMU source package. APT verifies the archive's signature and every hash below it; its
 * state lies in the cache folder, so the system's own lists and entries stay as they are. A source in the
 * cache is complete: it appears there by one rename.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { BrokenEnvironmentError, GaiaError } from '../../core/errors.ts';
import { CommandFailedError, runCommand } from '../command.ts';
import { debianKeyring, readDebianEntries, renderSourceEntries } from './debian-entries.ts';
import type { Upstream } from './recipe.ts';

export interface QemuSource {
  /** Debian's full version, epoch included. */
  readonly version: string;
  /** The folder that holds the package's files. */
  readonly folder: string;
  /** The source package's description in `folder`, named by every hash that matters. */
  readonly dscFile: string;
  /** How far its origin was verified, for people. */
  readonly verified: string;
}

export interface SourceOptions {
  /** gaia-vm's cache folder. */
  readonly cacheFolder: string;
  readonly upstream: Upstream;
  readonly onProgress?: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** Where APT's entries are read from. */
  readonly aptFolder?: string;
}

const manifestName = 'source.json';

/** The newest accepted version on offer; refuses by name what is no update of the wanted upstream release. */
export function chooseVersion(offered: readonly string[], upstream: Upstream): string {
  const newest = accepted(offered, upstream).at(-1);
  if (newest !== undefined) return newest;
  const wanted = `${upstream.versionPrefix}N`;
  if (offered.length === 0)
    throw new GaiaError(
      'GAIA_QEMU_SOURCE_MISSING',
      `Debian's archive offers no source package "${upstream.package}": the patches need ${wanted}, which Debian 12 (bookworm) has`,
    );
  throw new GaiaError(
    'GAIA_QEMU_RELEASE',
    `Debian's archive offers QEMU ${offered.join(', ')}, and the patches are written for ${wanted}: build on Debian 12 (bookworm)`,
  );
}

/** The accepted ones among `versions`, oldest first. */
function accepted(versions: readonly string[], upstream: Upstream): string[] {
  const update = (version: string): number => Number(version.slice(upstream.versionPrefix.length));
  return [...new Set(versions)]
    .filter((version) => version.startsWith(upstream.versionPrefix) && Number.isInteger(update(version)))
    .sort((a, b) => update(a) - update(b));
}

/** The newest complete source in the cache. */
export function cachedSource(cacheFolder: string, upstream: Upstream): QemuSource | undefined {
  const folder = join(cacheFolder, 'qemu/source');
  if (!existsSync(folder)) return undefined;
  const manifests = readdirSync(folder)
    .map((name) => join(folder, name, manifestName))
    .filter((file) => existsSync(file))
    .map((file) => ({
      ...(JSON.parse(readFileSync(file, 'utf8')) as Omit<QemuSource, 'folder'>),
      folder: dirname(file),
    }));
  const newest = accepted(
    manifests.map(({ version }) => version),
    upstream,
  ).at(-1);
  return manifests.find(({ version }) => version === newest);
}

/**
 * Makes sure that the newest accepted source is in the cache. Throws a `GaiaError` when the archive cannot
 * be reached, offers another release only, or the disk is full.
 */
export async function fetchSource(options: SourceOptions): Promise<QemuSource> {
  const apt = prepareApt(options);
  options.onProgress?.('asking Debian for the newest QEMU source');
  await aptCommand('apt-get', [...apt, 'update', '--error-on=any'], options);
  const shown = await aptCommand(
    'apt-cache',
    [...apt, 'showsrc', '--only-source', options.upstream.package],
    options,
  );
  const offered = [...shown.matchAll(/^Version: (\S+)$/gm)].map((match) => match[1] ?? '');
  const version = chooseVersion(offered, options.upstream);
  const cached = cachedSource(options.cacheFolder, options.upstream);
  if (cached?.version === version) return cached;
  return await download(version, apt, options);
}

/** Writes APT's private configuration; returns the arguments that make APT use it. */
function prepareApt(options: SourceOptions): string[] {
  const entries = readDebianEntries(options.aptFolder);
  if (entries.length === 0)
    throw new GaiaError(
      'GAIA_APT_ENTRIES',
      `No entry for Debian's main archive below ${options.aptFolder ?? '/etc/apt'}: add one ("deb URI bookworm main"), it is read for source packages too`,
    );
  if (!existsSync(debianKeyring))
    throw new BrokenEnvironmentError(
      'GAIA_DEBIAN_KEYRING',
      `${debianKeyring} is missing, so nothing from Debian's archive can be verified`,
      'apt-get install --reinstall debian-archive-keyring',
    );
  const folder = join(options.cacheFolder, 'qemu/apt');
  const parts = join(folder, 'sources');
  for (const name of ['lists/partial', 'cache/archives/partial', 'sources'])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(parts, 'gaia.sources'), renderSourceEntries(entries));
  const settings = join(folder, 'apt.conf');
  writeFileSync(
    settings,
    [
      `Dir::State::lists "${join(folder, 'lists')}";`,
      `Dir::Cache "${join(folder, 'cache')}";`,
      'Dir::Etc::sourcelist "/dev/null";',
      `Dir::Etc::sourceparts "${parts}";`,
      // Other programs hook into updates of the system's lists; these are not the system's.
      '#clear APT::Update::Pre-Invoke;',
      '#clear APT::Update::Post-Invoke;',
      '#clear APT::Update::Post-Invoke-Success;',
      'Acquire::Languages "none";',
      'Acquire::PDiffs "false";',
      'Acquire::Retries "2";',
      'Acquire::http::Timeout "30";',
      'Acquire::https::Timeout "30";',
      // APT downloads as an own user, who must be able to reach the folder.
      ...(reachableByAll(folder) ? [] : ['APT::Sandbox::User "root";']),
      '',
    ].join('\n'),
  );
  return ['--quiet', '--config-file', settings];
}

function reachableByAll(folder: string): boolean {
  for (let path = folder; ; path = dirname(path)) {
    if ((statSync(path).mode & 0o001) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

async function download(
  version: string,
  apt: readonly string[],
  options: SourceOptions,
): Promise<QemuSource> {
  const { package: name } = options.upstream;
  const parent = join(options.cacheFolder, 'qemu/source');
  // The same name each time, so that APT carries on where an interrupted download stopped.
  const partial = join(parent, `.partial-${fileNamePart(version)}`);
  mkdirSync(partial, { recursive: true });
  options.onProgress?.(`downloading ${name} ${version}`);
  await aptCommand('apt-get', [...apt, 'source', '--download-only', `${name}=${version}`], options, partial);
  const dsc = readdirSync(partial).find((file) => file.endsWith('.dsc'));
  if (dsc === undefined)
    throw new GaiaError(
      'GAIA_QEMU_SOURCE_INCOMPLETE',
      `APT reported success and brought no .dsc of ${name} ${version}: remove ${partial} and run the command again`,
    );
  const verified = await verifySignature(join(partial, dsc), options.signal);
  writeFileSync(
    join(partial, manifestName),
    `${JSON.stringify({ version, dscFile: dsc, dscSha256: sha256(join(partial, dsc)), verified }, undefined, 2)}\n`,
  );
  const folder = join(parent, fileNamePart(version));
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
  return { version, folder, dscFile: dsc, verified };
}

/** The .dsc is what was verified when it was downloaded; dpkg-source checks the other files against it. */
export function checkSource(source: QemuSource): void {
  const manifest = JSON.parse(readFileSync(join(source.folder, manifestName), 'utf8')) as {
    dscSha256: string;
  };
  const file = join(source.folder, source.dscFile);
  if (!existsSync(file) || sha256(file) !== manifest.dscSha256)
    throw new GaiaError(
      'GAIA_QEMU_SOURCE_CHANGED',
      `${file} is not what was downloaded and verified: remove ${source.folder} and run the command again`,
    );
}

/**
 * The maintainer's own signature comes on top of APT's chain (archive key, Release, Sources, .dsc), which
 * has been verified by now. A released debian-keyring lacks keys made after it, so an unknown key is told
 * and no reason to refuse; a signature that does not match is.
 */
async function verifySignature(dsc: string, signal: AbortSignal | undefined): Promise<string> {
  const chain = 'archive signature and hashes verified by APT';
  const keyrings = ['debian-keyring.gpg', 'debian-maintainers.gpg']
    .map((name) => join('/usr/share/keyrings', name))
    .filter((file) => existsSync(file));
  if (keyrings.length === 0 || !existsSync('/usr/bin/gpgv'))
    return `${chain}; maintainer's signature not checked, debian-keyring is not installed`;
  const command = [...keyrings.flatMap((file) => ['--keyring', file]), dsc];
  try {
    await runCommand('gpgv', command, { signal });
    return `${chain}; maintainer's signature is good`;
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    if (error.tail.some((line) => /no public key/i.test(line)))
      return `${chain}; maintainer's signature not checked, its key is not in the installed debian-keyring`;
    throw new GaiaError(
      'GAIA_QEMU_SIGNATURE',
      `The maintainer's signature of ${dsc} is bad: remove its folder and run the command again`,
      { cause: error },
    );
  }
}

async function aptCommand(
  program: 'apt-get' | 'apt-cache',
  commandArguments: readonly string[],
  options: SourceOptions,
  folder?: string,
): Promise<string> {
  try {
    return await runCommand(program, commandArguments, {
      ...(folder === undefined ? {} : { folder }),
      signal: options.signal,
    });
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    const text = error.tail.join('\n');
    if (error.diskFull) throw diskFullError(options.cacheFolder, error);
    if (
      /could not (resolve|connect)|temporary failure|network is unreachable|timed? ?out|unable to connect/i.test(
        text,
      )
    )
      throw new GaiaError(
        'GAIA_ARCHIVE_UNREACHABLE',
        `Debian's archive cannot be reached (${firstComplaint(error)}): check the network and run the command again`,
        { cause: error },
      );
    throw new GaiaError(
      'GAIA_APT',
      `APT could not fetch QEMU's source (${firstComplaint(error)}): mend APT's entry in /etc/apt and run the command again`,
      { cause: error },
    );
  }
}

/** APT's first error, without its letter and without what follows the first sentence. */
function firstComplaint(error: CommandFailedError): string {
  const line =
    error.tail.find((text) => text.startsWith('E: ')) ??
    error.tail.find((text) => /^(W|Err)/.test(text)) ??
    error.message;
  return line
    .replace(/^[EW]: /, '')
    .replace(/\s+/g, ' ')
    .slice(0, 200);
}

export function diskFullError(folder: string, cause?: unknown): GaiaError {
  return new GaiaError(
    'GAIA_DISK_FULL',
    `The disk below ${folder} is full: free some space, or set GAIA_ROOT to a folder on a larger disk, and run the command again`,
    { cause },
  );
}

function fileNamePart(version: string): string {
  return version.replace(/^\d+:/, '').replace(/[^\w.+~-]/g, '_');
}

function sha256(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
