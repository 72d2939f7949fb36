/**
 * Builds the patched QEMU. A finished build appears in the cache by one rename, so what is there is whole.
 * An interrupted one leaves a working folder that no reader looks at; the next run carries on there.
 */
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { BrokenEnvironmentError, GaiaError } from '../../core/errors.ts';
import { CommandFailedError, runCommand, type CommandOptions } from '../command.ts';
import { takeLock } from '../lock-file.ts';
import { projectFolder } from '../project-folder.ts';
import { installFolder, manifestName, matchingBuild, programName, readBuildId } from './installed.ts';
import type { InstalledQemu } from './installed.ts';
import { buildId, readRecipe, type QemuRecipe } from './recipe.ts';
import { cachedSource, checkSource, diskFullError, fetchSource, type QemuSource } from './source.ts';

type BuildStage = 'source' | 'unpack' | 'patch' | 'configure' | 'compile' | 'install';

export interface BuildProgress {
  readonly stage: BuildStage;
  /** What is being done or waited for. */
  readonly text: string;
  /** Steps of the compilation so far and in all; 0 of 0 in other stages. */
  readonly done: number;
  readonly total: number;
}

export interface BuildOptions {
  readonly cacheFolder: string;
  readonly project?: string;
  /** Compilers at a time. */
  readonly jobs?: number;
  /** Asks Debian for a newer source even when a build of the cached one is installed. */
  readonly update?: boolean;
  /** Builds again from scratch, whatever is there. */
  readonly force?: boolean;
  readonly onProgress?: (progress: BuildProgress) => void;
  readonly signal?: AbortSignal;
  readonly aptFolder?: string;
}

/** The unpacked tree (350 MiB), the build in it (200 MiB), the source and APT's lists (100 MiB). */
const workBytesMax = 700 * 2 ** 20;

/** What the build calls; the packages are those of Debian 12. */
const tools: readonly { readonly program: string; readonly package: string }[] = [
  { program: 'apt-get', package: 'apt' },
  { program: 'dpkg-source', package: 'dpkg-dev' },
  { program: 'patch', package: 'patch' },
  { program: 'gcc', package: 'build-essential' },
  { program: 'meson', package: 'meson' },
  { program: 'ninja', package: 'ninja-build' },
  { program: 'pkg-config', package: 'pkg-config' },
  { program: 'python3', package: 'python3' },
  { program: 'strip', package: 'binutils' },
];

const processesLockName = 'processes.lock';
/** No program of the build ends with it. */
const lockedExitCode = 75;
/** Files may still appear in a folder whose writer is being killed. */
const removal = { recursive: true, force: true, maxRetries: 10, retryDelay: 100 } as const;

interface Work {
  readonly id: string;
  readonly recipe: QemuRecipe;
  readonly source: QemuSource;
  readonly folder: string;
  readonly tree: string;
  readonly logFile: string;
  readonly options: BuildOptions;
}

/** Builds what is missing and returns the build to use. */
export async function buildQemu(options: BuildOptions): Promise<InstalledQemu> {
  const project = options.project ?? projectFolder();
  const present = matchingBuild(options.cacheFolder, project);
  const wanted = options.update !== true && options.force !== true;
  if (wanted && present !== undefined && (await readBuildId(present.file)) === present.buildId)
    return present;

  requireTools();
  const qemuFolder = join(options.cacheFolder, 'qemu');
  try {
    mkdirSync(qemuFolder, { recursive: true });
    const lock = takeLock(join(qemuFolder, 'build.lock'));
    if ('holderPid' in lock)
      throw new GaiaError(
        'GAIA_QEMU_BUSY',
        `Process ${lock.holderPid} is building QEMU in ${qemuFolder}: wait until it ends, then run the command again`,
      );
    try {
      return await buildLocked(options, project);
    } finally {
      lock.release();
    }
  } catch (error) {
    const explained = explainFileError(error, options.cacheFolder);
    // A working folder that fills the disk would only stand in the way of whoever frees space.
    if (explained instanceof GaiaError && explained.code === 'GAIA_DISK_FULL')
      rmSync(join(qemuFolder, 'work'), removal);
    throw explained;
  }
}

async function buildLocked(options: BuildOptions, project: string): Promise<InstalledQemu> {
  const startedAt = performance.now();
  const recipe = readRecipe(project);
  requireSpace(options.cacheFolder);
  const source = await obtainSource(options, recipe);
  const id = buildId(recipe, source.version);
  const present = matchingBuild(options.cacheFolder, project);
  if (options.force !== true && present?.buildId === id && (await readBuildId(present.file)) === id)
    return present;

  const folder = join(options.cacheFolder, 'qemu/work', id);
  if (options.force === true) rmSync(folder, removal);
  mkdirSync(folder, { recursive: true });
  const work: Work = {
    id,
    recipe,
    source,
    folder,
    tree: join(folder, 'tree'),
    logFile: join(folder, 'build.log'),
    options,
  };
  // Waits until whatever an interrupted build left running is gone.
  await run(work, 'true', []);
  if (!existsSync(work.tree)) await prepareTree(work, project);
  await configure(work);
  await compile(work);
  const installed = await install(work, startedAt);
  rmSync(join(options.cacheFolder, 'qemu/work'), removal);
  return installed;
}

/** Debian's newest source; without a network the cached one will do, unless a newer one was asked for. */
async function obtainSource(options: BuildOptions, recipe: QemuRecipe): Promise<QemuSource> {
  try {
    return await fetchSource({
      cacheFolder: options.cacheFolder,
      upstream: recipe.upstream,
      signal: options.signal,
      onProgress: (text) => report(options, 'source', text),
      ...(options.aptFolder === undefined ? {} : { aptFolder: options.aptFolder }),
    });
  } catch (error) {
    const cached = cachedSource(options.cacheFolder, recipe.upstream);
    const unreachable = error instanceof GaiaError && error.code === 'GAIA_ARCHIVE_UNREACHABLE';
    if (!unreachable || cached === undefined || options.update === true) throw error;
    report(options, 'source', `Debian's archive cannot be reached, using the downloaded ${cached.version}`);
    return cached;
  }
}

/** Unpacks and patches beside the final place and renames at the end: a tree that exists is complete. */
async function prepareTree(work: Work, project: string): Promise<void> {
  const { source, recipe, options } = work;
  report(options, 'unpack', `unpacking ${source.version}`);
  checkSource(source);
  const draftFolder = join(work.folder, 'draft');
  const draft = join(draftFolder, 'tree');
  rmSync(draftFolder, removal);
  mkdirSync(draftFolder);
  try {
    // dpkg-source unpacks beside its goal first, so the whole folder is the draft.
    const dsc = join(source.folder, source.dscFile);
    await run(work, 'dpkg-source', ['--no-copy', '--extract', dsc, draft], draftFolder);
    for (const [index, patch] of recipe.patches.entries()) {
      report(options, 'patch', `${patch.name} (${index + 1} of ${recipe.patches.length})`);
      await applyPatch(work, draft, patch.file, patch.name);
    }
  } catch (error) {
    rmSync(draftFolder, removal);
    throw error;
  }
  mkdirSync(join(draft, 'include/hw/gaia'), { recursive: true });
  copyFileSync(join(project, 'native/gaia-layout.h'), join(draft, 'include/hw/gaia/gaia-layout.h'));
  copyFileSync(
    join(project, 'qemu-patches/gaia.mak'),
    join(draft, 'configs/devices/x86_64-softmmu/gaia.mak'),
  );
  renameSync(draft, work.tree);
  rmSync(draftFolder, removal);
}

/** A patch that applies only with fuzz may have landed elsewhere than meant: it is refused. */
async function applyPatch(work: Work, tree: string, file: string, name: string): Promise<void> {
  try {
    await run(
      work,
      'patch',
      ['--strip=1', '--fuzz=0', '--forward', '--batch', '--no-backup-if-mismatch', `--input=${file}`],
      tree,
    );
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    throw new GaiaError(
      'GAIA_QEMU_PATCH',
      `qemu-patches/${name} does not apply to QEMU ${work.source.version} without fuzz (${error.tail.find((line) => /FAILED|malformed|find file/.test(line)) ?? error.message}): rebase the patch on this version`,
      { cause: error },
    );
  }
}

async function configure(work: Work): Promise<void> {
  const build = join(work.folder, 'build');
  const finished = join(work.folder, 'configured');
  if (existsSync(finished)) return;
  report(work.options, 'configure', 'looking for compilers and libraries');
  rmSync(build, removal);
  mkdirSync(build);
  try {
    await run(
      work,
      join(work.tree, 'configure'),
      [...work.recipe.flags, `--with-pkgversion=gaia-${work.id}, Debian ${work.source.version}`],
      build,
    );
  } catch (error) {
    if (!(error instanceof CommandFailedError) || error.diskFull) throw error;
    throw new GaiaError(
      'GAIA_QEMU_CONFIGURE',
      `QEMU's configure failed (${error.tail.find((line) => line.includes('ERROR')) ?? error.message}): install what it misses with "node cli/setup.mjs packages"; the whole story is in ${work.logFile}`,
      { cause: error },
    );
  }
  writeFileSync(finished, '');
}

async function compile(work: Work): Promise<void> {
  const jobs = work.options.jobs ?? availableParallelism();
  report(work.options, 'compile', 'starting the compiler');
  try {
    await run(work, 'ninja', [`-j${jobs}`, programName], join(work.folder, 'build'), {
      environment: { NINJA_STATUS: '[%f/%t] ' },
      onLine: (line) => {
        const match = /^\[(\d+)\/(\d+)\] (.*)$/.exec(line);
        if (match === null) return;
        work.options.onProgress?.({
          stage: 'compile',
          text: match[3] ?? '',
          done: Number(match[1]),
          total: Number(match[2]),
        });
      },
    });
  } catch (error) {
    if (!(error instanceof CommandFailedError) || error.diskFull) throw error;
    const reason = error.tail.find((line) => /\berror:/.test(line)) ?? error.message;
    throw new GaiaError(
      'GAIA_QEMU_COMPILE',
      `QEMU does not compile (${reason.trim()}): the whole story is in ${work.logFile}`,
      { cause: error },
    );
  }
}

async function install(work: Work, startedAt: number): Promise<InstalledQemu> {
  const { id, source, recipe, options } = work;
  report(options, 'install', 'stripping and checking the binary');
  const draft = join(work.folder, 'install');
  rmSync(draft, removal);
  mkdirSync(draft);
  const program = join(draft, programName);
  await run(work, 'strip', ['-o', program, join(work.folder, 'build', programName)]);
  const found = await readBuildId(program);
  if (found !== id)
    throw new GaiaError(
      'GAIA_QEMU_UNUSABLE',
      `The QEMU just built reports build ${found ?? 'none'} instead of ${id}: remove ${work.folder} and build again`,
    );
  const manifest: Omit<InstalledQemu, 'file'> = {
    buildId: id,
    sourceVersion: source.version,
    verified: source.verified,
    patches: recipe.patches.map(({ name }) => name),
    builtAt: new Date().toISOString(),
    buildSeconds: Math.round((performance.now() - startedAt) / 1000),
  };
  writeFileSync(join(draft, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`);
  const final = installFolder(options.cacheFolder, id);
  rmSync(final, removal);
  renameSync(draft, final);
  return { ...manifest, file: join(final, programName) };
}

/**
 * Runs a program under a lock that the kernel frees only when it and all that it started are gone: what
 * outlived an interrupted build by a moment does not write into this one.
 */
async function run(
  work: Work,
  program: string,
  commandArguments: readonly string[],
  folder = work.folder,
  more: CommandOptions = {},
): Promise<void> {
  const lock = ['--no-fork', '--timeout', '120', '--conflict-exit-code', `${lockedExitCode}`];
  try {
    await runCommand('flock', [...lock, join(work.folder, processesLockName), program, ...commandArguments], {
      folder,
      logFile: work.logFile,
      signal: work.options.signal,
      ...more,
    });
  } catch (error) {
    if (!(error instanceof CommandFailedError) || error.exitCode !== lockedExitCode) throw error;
    throw new GaiaError(
      'GAIA_QEMU_BUSY',
      `Programs of an interrupted build still run in ${work.folder}: end them, then run the command again`,
      { cause: error },
    );
  }
}

function requireTools(): void {
  const path = (process.env['PATH'] ?? '').split(delimiter);
  const missing = tools.filter(({ program }) => !path.some((folder) => existsSync(join(folder, program))));
  if (missing.length === 0) return;
  throw new BrokenEnvironmentError(
    'GAIA_QEMU_TOOLS',
    `Building QEMU needs ${missing.map(({ program }) => program).join(', ')}, which this machine lacks`,
    `apt-get install --no-install-recommends ${missing.map((tool) => tool.package).join(' ')}`,
  );
}

function requireSpace(cacheFolder: string): void {
  const disk = statfsSync(cacheFolder);
  const freeBytes = disk.bavail * disk.bsize;
  const work = join(cacheFolder, 'qemu/work');
  if (existsSync(work) || freeBytes >= workBytesMax) return;
  throw new GaiaError(
    'GAIA_DISK_FULL',
    `Building QEMU needs ${workBytesMax / 2 ** 20} MiB below ${cacheFolder} and ${Math.floor(freeBytes / 2 ** 20)} MiB are free: free some space, or set GAIA_ROOT to a folder on a larger disk`,
  );
}

/** Full disks and forbidden folders show up in any call; what they mean here is the same each time. */
function explainFileError(error: unknown, cacheFolder: string): unknown {
  if (error instanceof CommandFailedError) return error.diskFull ? diskFullError(cacheFolder, error) : error;
  if (!(error instanceof Error) || !('code' in error)) return error;
  if (error.code === 'ENOSPC' || error.code === 'EDQUOT') return diskFullError(cacheFolder, error);
  if (error.code === 'EACCES' || error.code === 'EPERM' || error.code === 'EROFS')
    return new GaiaError(
      'GAIA_CACHE_FORBIDDEN',
      `The cache folder ${cacheFolder} cannot be written by this user: run as root, or set GAIA_ROOT to a folder of your own`,
      { cause: error },
    );
  return error;
}

function report(options: BuildOptions, stage: BuildStage, text: string): void {
  options.onProgress?.({ stage, text, done: 0, total: 0 });
}

/** For `qemu info`: what a build made now from the cached source would be called. */
export function expectedBuildId(cacheFolder: string, project = projectFolder()): string | undefined {
  const recipe = readRecipe(project);
  const source = cachedSource(cacheFolder, recipe.upstream);
  return source === undefined ? undefined : buildId(recipe, source.version);
}
