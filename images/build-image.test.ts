import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { buildImage, findImage, listImages } from './build-image.ts';

/** Discards what is sent to it; nothing listens there on any machine. */
const closedMirror = 'http://127.0.0.1:9/debian';
const hasApt = existsSync('/usr/bin/apt-get') && existsSync('/usr/bin/flock');
const canMount = process.getuid?.() === 0;

let folder: string;
let cacheFolder: string;
let aptFolder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-build-'));
  cacheFolder = join(folder, 'cache');
  aptFolder = join(folder, 'apt');
  await mkdir(aptFolder);
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function useMirror(uri: string): Promise<void> {
  await writeFile(join(aptFolder, 'sources.list'), `deb ${uri} bookworm main\n`);
}

async function leftovers(): Promise<string[]> {
  return existsSync(join(cacheFolder, 'images')) ? readdir(join(cacheFolder, 'images', 'memcached')) : [];
}

/** An image as a build leaves it, with contents that only their names matter of. */
async function installImage(name: string, changes: object = {}): Promise<void> {
  const images = join(cacheFolder, 'images', name);
  await mkdir(join(images, 'id'), { recursive: true });
  const image = {
    schema: 1,
    name,
    description: 'made by a test',
    kernel: 'kernel',
    initrd: 'initrd',
    disk: null,
    memoryBytesMin: 128 << 20,
    readyMarker: null,
    protocol: null,
    port: null,
    kernelArguments: [],
    recipeHash: null,
    initrdSha256: null,
    packages: [],
    ...changes,
  };
  await writeFile(join(images, 'id', 'image.json'), JSON.stringify(image));
  await writeFile(join(images, 'id', 'kernel'), '');
  await writeFile(join(images, 'id', 'initrd'), '');
  await symlink('id', join(images, 'current'));
}

describe('building images', () => {
  it('an unknown image is refused before anything is fetched', async () => {
    await expect(buildImage('nonsense', { cacheFolder, aptFolder })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_UNKNOWN',
    });
    expect(existsSync(cacheFolder)).toBe(false);
  });

  it('a machine without bookworm package sources is told to add one', async () => {
    await expect(buildImage('memcached', { cacheFolder, aptFolder })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_SOURCES',
      message: expect.stringContaining('sources.list.d') as string,
    });
  });

  it.skipIf(!hasApt)('without network the build says so and leaves no image (needs apt)', async () => {
    await useMirror(closedMirror);
    await expect(buildImage('memcached', { cacheFolder, aptFolder })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_NETWORK',
      message: expect.stringMatching(/cannot be fetched.*check the network/) as string,
    });
    expect(await leftovers()).toEqual([]);
  });

  it.skipIf(!canMount)('a full disk is named, and leaves no image (needs root)', async () => {
    await useMirror(closedMirror);
    await mkdir(cacheFolder);
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', cacheFolder]);
    expect(mount.status).toBe(0);
    try {
      await expect(buildImage('memcached', { cacheFolder, aptFolder })).rejects.toMatchObject({
        code: 'GAIA_IMAGE_DISK_FULL',
        message: expect.stringMatching(/No space left.*free about/) as string,
      });
      expect(await leftovers()).toEqual([]);
    } finally {
      spawnSync('umount', [cacheFolder]);
    }
  });

  it('a cache folder that cannot be made is named', async () => {
    await writeFile(cacheFolder, 'a file where the folder should be');
    await expect(buildImage('memcached', { cacheFolder, aptFolder })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_NO_ACCESS',
      message: expect.stringContaining(cacheFolder) as string,
    });
  });

  it('an aborted build ends with the reason of the abort', async () => {
    await useMirror(closedMirror);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(buildImage('memcached', { cacheFolder, aptFolder, signal })).rejects.toThrow('enough');
  });
});

describe('finding images', () => {
  it('an image that is not built yet is named with the command that builds it', async () => {
    await expect(findImage('redis', cacheFolder)).rejects.toMatchObject({
      code: 'GAIA_IMAGE_NOT_BUILT',
      message: expect.stringContaining('gaia-vm image build redis') as string,
    });
    await expect(findImage('nonsense', cacheFolder)).rejects.toMatchObject({ code: 'GAIA_IMAGE_UNKNOWN' });
  });

  it('a built image has absolute paths, wherever its folder is', async () => {
    await installImage('redis');
    const image = await findImage('redis', cacheFolder);
    expect(image.kernel).toBe(join(cacheFolder, 'images/redis/id/kernel'));
    expect(await findImage(join(cacheFolder, 'images/redis/id/image.json'))).toMatchObject({ name: 'redis' });
  });

  it('an image without its kernel, of another version or damaged counts as not built', async () => {
    await installImage('redis', { kernel: 'absent' });
    await installImage('nginx', { schema: 2 });
    await installImage('own');
    await writeFile(join(cacheFolder, 'images/own/id/image.json'), '{');
    await expect(findImage('redis', cacheFolder)).rejects.toMatchObject({ code: 'GAIA_IMAGE_NOT_BUILT' });
    const built = (await listImages(cacheFolder)).filter(({ image }) => image !== undefined);
    expect(built).toEqual([]);
  });

  it('the list holds built-in images and those of own recipes, sorted', async () => {
    await installImage('redis');
    await installImage('own');
    const listings = await listImages(cacheFolder);
    expect(listings.map(({ name, image }) => [name, image !== undefined])).toEqual([
      ['mariadb', false],
      ['memcached', false],
      ['nginx', false],
      ['node-sqlite', false],
      ['own', true],
      ['redis', true],
    ]);
  });
});
