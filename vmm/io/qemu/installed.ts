/**
 * Finds the patched QEMU and proves that it is the one this gaia-vm was written for: the build id that the
 * binary itself prints must equal the id computed from the patches, flags, devices and layout at hand.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { BrokenEnvironmentError } from '../../core/errors.ts';
import { CommandFailedError, runCommand } from '../command.ts';
import { folders } from '../folders.ts';
import { projectFolder, selfCommand } from '../project-folder.ts';
import { buildId, readRecipe } from './recipe.ts';

export interface InstalledQemu {
  readonly file: string;
  readonly buildId: string;
  /** Debian's version of the source it was built from. */
  readonly sourceVersion: string;
  /** How the source's origin was verified. */
  readonly verified: string;
  readonly patches: readonly string[];
  readonly builtAt: string;
  readonly buildSeconds: number;
}

export const programName = 'qemu-system-x86_64';
export const manifestName = 'build.json';

/** Where a build of this id is, or will be. */
export function installFolder(cacheFolder: string, id: string): string {
  return join(cacheFolder, 'qemu', id);
}

/** Every build in the cache, whatever it was made from. */
export function installedBuilds(cacheFolder: string): InstalledQemu[] {
  const folder = join(cacheFolder, 'qemu');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => /^[0-9a-f]{16}$/.test(name))
    .map((name) => join(folder, name))
    .filter((build) => existsSync(join(build, manifestName)) && existsSync(join(build, programName)))
    .map((build) => ({
      ...(JSON.parse(readFileSync(join(build, manifestName), 'utf8')) as Omit<InstalledQemu, 'file'>),
      file: join(build, programName),
    }));
}

/** The build made from just what `project` holds and the newest source, if there is one. */
export function matchingBuild(cacheFolder: string, project: string): InstalledQemu | undefined {
  const recipe = readRecipe(project);
  const update = ({ sourceVersion }: InstalledQemu): number =>
    Number(sourceVersion.slice(recipe.upstream.versionPrefix.length));
  return installedBuilds(cacheFolder)
    .filter((build) => build.buildId === buildId(recipe, build.sourceVersion))
    .sort((a, b) => update(a) - update(b))
    .at(-1);
}

export interface RequireOptions {
  readonly cacheFolder?: string;
  readonly project?: string;
  /** A binary to check instead of the cache's own: the emulator that a libvirt domain names, say. */
  readonly file?: string;
}

/** The QEMU to run. Throws `BrokenEnvironmentError` when there is none, or only one of another build. */
export async function requireQemu(options: RequireOptions = {}): Promise<InstalledQemu> {
  const project = options.project ?? projectFolder();
  const cacheFolder = options.cacheFolder ?? folders().cache;
  const remedy = `${selfCommand()} qemu build`;
  const match = matchingBuild(cacheFolder, project);
  if (match === undefined) {
    const others = installedBuilds(cacheFolder);
    throw new BrokenEnvironmentError(
      'GAIA_QEMU_MISSING',
      others.length === 0
        ? `No patched QEMU is installed below ${cacheFolder}`
        : `The patched QEMU below ${cacheFolder} (build ${others.map((other) => other.buildId).join(', ')}) was made from other patches, flags or layout than this gaia-vm has`,
      remedy,
    );
  }
  const file = options.file ?? match.file;
  const found = await readBuildId(file);
  if (found !== match.buildId)
    throw new BrokenEnvironmentError(
      'GAIA_QEMU_BUILD',
      `${file} is ${found === undefined ? 'no QEMU of gaia-vm' : `build ${found}`}, and this gaia-vm needs build ${match.buildId}`,
      options.file === undefined ? `${remedy} --force` : remedy,
    );
  return { ...match, file };
}

/** The build id that a binary prints, or undefined when it prints none. */
export async function readBuildId(file: string): Promise<string | undefined> {
  try {
    const text = await runCommand(file, ['--version']);
    return /\(gaia-([0-9a-f]{16})\b/.exec(text)?.[1];
  } catch (error) {
    if (error instanceof CommandFailedError) return undefined;
    throw error;
  }
}
