/**
 * Builds guest images and keeps them in the cache folder, one folder per set of inputs:
 *
 *     CACHE/packages/             package index and downloaded packages
 *     CACHE/images/NAME/ID/       image.json, kernel, initrd; never changed once it is there
 *     CACHE/images/NAME/current   symbolic link to the newest ID
 *
 * Guarantees: the same recipe and the same package versions give the same bytes; a half-made image is never
 * visible; an image that is in use is not changed by a new build of it.
 */

import { createHash } from 'node:crypto';
import {
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';

import { writeCpioArchive } from './cpio-archive.ts';
import { downloadPackages, sha256OfFile, type DebianPackage } from './debian-packages.ts';
import { explainWriteError, ImageError, systemErrorCode } from './error.ts';
import { basePackages, consoleDevice, layOutGuest, readyMarkerOf } from './guest-tree.ts';
import { imageFileName, loadImage, type Image } from './image.ts';
import { builtInRecipeNames, findRecipe, imagesDataFile, recipeHash, type Recipe } from './recipe.ts';

export interface BuildProgress {
  readonly image: string;
  readonly text: string;
  /** From 0 to 1 where it is known. */
  readonly fraction: number | undefined;
}

export interface BuildOptions {
  /** `defaultCacheFolder()` unless given. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: BuildProgress) => void;
  /** Fetch the package index and build again even if the image is there. */
  readonly refresh?: boolean;
  /** Ends the build; nothing half-made stays. */
  readonly signal?: AbortSignal;
  /** Where the machine's apt configuration is; /etc/apt unless given. */
  readonly aptFolder?: string;
}

export interface ImageListing {
  readonly name: string;
  readonly description: string;
  /** Undefined until it is built. */
  readonly image: Image | undefined;
}

/** Changes whenever the same recipe would give other bytes. */
const builderVersion = 1;
/** Our guests need none of these: background chatter on the network, audit, self-tests that cost boot time. */
const argumentsOfEveryImage = ['ipv6.disable=1', 'audit=0', 'apparmor=0', 'cryptomgr.notests'];
const temporaryPrefix = '.building-';
const temporaryAgeMsMax = 60 * 60 * 1000;

/** $GAIA_ROOT/cache, or /var/cache/gaia-vm. */
export function defaultCacheFolder(): string {
  const root = process.env['GAIA_ROOT'];
  return root === undefined || root === '' ? '/var/cache/gaia-vm' : join(root, 'cache');
}

/**
 * Builds the image of a built-in recipe (by name), of a recipe file (by path) or of a loaded recipe, or
 * resolves at once when that image is there already.
 */
export async function buildImage(recipeOrName: string | Recipe, options: BuildOptions = {}): Promise<Image> {
  const recipe = typeof recipeOrName === 'string' ? await findRecipe(recipeOrName) : recipeOrName;
  const cacheFolder = options.cacheFolder ?? defaultCacheFolder();
  const imageFolder = join(cacheFolder, 'images', recipe.name);
  const hash = await inputHash(recipe);
  const present = await currentImage(cacheFolder, recipe.name);
  if (options.refresh !== true && present?.recipeHash === hash) return present;
  try {
    return await build(recipe, hash, cacheFolder, imageFolder, options);
  } catch (error) {
    throw explainWriteError(error, cacheFolder);
  }
}

/** The image as it was last built, without building it; a name or the path of an image.json. */
export async function findImage(nameOrFile: string, cacheFolder = defaultCacheFolder()): Promise<Image> {
  if (nameOrFile.includes('/') || nameOrFile.endsWith('.json')) return loadImage(nameOrFile);
  const image = await currentImage(cacheFolder, nameOrFile);
  if (image !== undefined) return image;
  // Says which images exist when the name is wrong.
  await findRecipe(nameOrFile);
  throw new ImageError(
    'GAIA_IMAGE_NOT_BUILT',
    `Image "${nameOrFile}" is not built yet: run "gaia-vm image build ${nameOrFile}"`,
  );
}

/** The built-in images and those built from own recipes, sorted by name. */
export async function listImages(cacheFolder = defaultCacheFolder()): Promise<ImageListing[]> {
  const builtIn = await builtInRecipeNames();
  const names = new Set([...builtIn, ...(await namesIn(join(cacheFolder, 'images')))]);
  const listings: ImageListing[] = [];
  for (const name of [...names].sort()) {
    const image = await currentImage(cacheFolder, name);
    if (builtIn.includes(name)) {
      listings.push({ name, description: (await findRecipe(name)).description, image });
    } else if (image !== undefined) {
      listings.push({ name, description: image.description, image });
    }
  }
  return listings;
}

async function currentImage(cacheFolder: string, name: string): Promise<Image | undefined> {
  try {
    // The link is followed once, here: a later build must not change what a running VM was started from.
    const folder = await realpath(join(cacheFolder, 'images', name, 'current'));
    return await loadImage(join(folder, imageFileName));
  } catch (error) {
    // A damaged image counts as absent: the next build replaces it.
    if (error instanceof ImageError) return undefined;
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** Covers all that decides the image except the versions of the packages. */
async function inputHash(recipe: Recipe): Promise<string> {
  return createHash('sha256')
    .update(`${builderVersion}\n${recipeHash(recipe)}\n`)
    .update(await readFile(imagesDataFile('guest', 'init.sh')))
    .digest('hex');
}

async function build(
  recipe: Recipe,
  hash: string,
  cacheFolder: string,
  imageFolder: string,
  options: BuildOptions,
): Promise<Image> {
  const onText = (text: string, fraction?: number): void =>
    options.onProgress?.({ image: recipe.name, text, fraction });
  await mkdir(imageFolder, { recursive: true });
  await removeAbandoned(imageFolder);
  const packages = await downloadPackages({
    folder: join(cacheFolder, 'packages'),
    packages: [...basePackages, ...recipe.packages],
    packagesLeftOut: recipe.packagesLeftOut,
    refresh: options.refresh ?? false,
    onText,
    signal: options.signal,
    aptFolder: options.aptFolder,
  });
  const id = imageId(hash, packages);
  const temporary = await mkdtemp(join(imageFolder, temporaryPrefix));
  try {
    const finished = join(temporary, 'image');
    await mkdir(finished);
    onText('unpacking packages');
    const tree = await layOutGuest(join(temporary, 'tree'), recipe, packages, options.signal);
    onText('packing the initramfs');
    const initrd = join(finished, 'initrd');
    await writeCpioArchive(tree.root, initrd, { devices: [consoleDevice] });
    await copyFile(tree.kernel, join(finished, 'kernel'));
    const image = describe(recipe, hash, packages, await sha256OfFile(initrd));
    await writeFile(join(finished, imageFileName), `${JSON.stringify(image, null, 2)}\n`);
    options.signal?.throwIfAborted();
    await publish(finished, imageFolder, id);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  onText('done', 1);
  return loadImage(join(imageFolder, id, imageFileName));
}

function imageId(hash: string, packages: readonly DebianPackage[]): string {
  const inputs = createHash('sha256').update(hash);
  for (const { sha256 } of packages) inputs.update(`\n${sha256}`);
  return inputs.digest('hex').slice(0, 16);
}

function describe(
  recipe: Recipe,
  hash: string,
  packages: readonly DebianPackage[],
  initrdSha256: string,
): Image {
  return {
    schema: 1,
    name: recipe.name,
    description: recipe.description,
    kernel: 'kernel',
    initrd: 'initrd',
    disk: null,
    memoryBytesMin: recipe.memoryBytesMin,
    readyMarker: readyMarkerOf(recipe.name),
    protocol: recipe.protocol,
    port: recipe.port,
    kernelArguments: [...argumentsOfEveryImage, ...recipe.kernelArguments],
    recipeHash: hash,
    initrdSha256,
    packages: packages.map(({ name, version, sha256 }) => ({ name, version, sha256 })),
  };
}

/** The bytes are on disk before the name is, so that not even a power cut shows a half-made image. */
async function publish(finished: string, imageFolder: string, id: string): Promise<void> {
  for (const name of await readdir(finished)) {
    const file = await open(join(finished, name), 'r');
    await file.sync();
    await file.close();
  }
  const target = join(imageFolder, id);
  try {
    await rename(finished, target);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    // The same inputs were built before. Those files may have been damaged since, so the new ones win.
    await rename(target, join(finished, '..', 'replaced'));
    await rename(finished, target);
  }
  const link = join(imageFolder, `${temporaryPrefix}link-${process.pid}`);
  await rm(link, { force: true });
  await symlink(id, link);
  await rename(link, join(imageFolder, 'current'));
}

/** What a killed build has left; a running one is younger. */
async function removeAbandoned(imageFolder: string): Promise<void> {
  for (const name of await namesIn(imageFolder)) {
    if (!name.startsWith(temporaryPrefix)) continue;
    const path = join(imageFolder, name);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && Date.now() - found.mtimeMs < temporaryAgeMsMax) continue;
    await rm(path, { recursive: true, force: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
