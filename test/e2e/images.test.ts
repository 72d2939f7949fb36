/** Every image boots on every machine profile and serves a client of its protocol; builds are reproducible. */

import { connect } from 'node:net';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { buildImage, defaultCacheFolder, type Image } from '../../images/index.ts';
import { generatedContents } from '../../images/recipe.ts';
import { machineArguments, type MachineProfile } from '../../vmm/io/qemu/profile.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { QemuProcess } from '../framework/qemu-process.ts';
import {
  http,
  mariadbQuery,
  memcachedRoundTrip,
  redisRoundTrip,
  type Endpoint,
} from '../framework/service-checks.ts';

const guestAddress = '10.0.0.2';
const bootTimeoutMs = 90_000;
const whyImpossible = NetworkNamespace.whyImpossible();

/** Each machine in one mode, so that both modes and both machines boot every image. */
const profiles: readonly Pick<MachineProfile, 'machine' | 'lockstep'>[] = [
  { machine: 'pc', lockstep: false },
  { machine: 'microvm', lockstep: true },
];

const services: Readonly<Record<string, (endpoint: Endpoint) => Promise<void>>> = {
  memcached: async (endpoint) => {
    expect(await memcachedRoundTrip(endpoint, 'key', 'a value')).toBe('a value');
  },
  redis: async (endpoint) => {
    expect(await redisRoundTrip(endpoint, 'key', 'value')).toBe('value');
  },
  nginx: async (endpoint) => {
    const page = await http(endpoint, 'GET', '/');
    expect([page.status, page.body.toString()]).toEqual([200, expect.stringContaining('<title>gaia-vm')]);
    const file = await http(endpoint, 'GET', '/2m.bin');
    expect(file.body.equals(generatedContents('srv/www/2m.bin', 2 << 20))).toBe(true);
    expect((await http(endpoint, 'GET', '/absent')).status).toBe(404);
  },
  mariadb: async (endpoint) => {
    const login = { user: 'sbtest', password: 'sbtest', database: 'sbtest' };
    expect(await mariadbQuery(endpoint, login, 'SELECT 6 * 7')).toBe('42');
    await expect(mariadbQuery(endpoint, { ...login, password: 'wrong' }, 'SELECT 1')).rejects.toThrow(
      /Access denied/,
    );
  },
  'node-sqlite': async (endpoint) => {
    expect((await http(endpoint, 'GET', '/key')).status).toBe(404);
    expect((await http(endpoint, 'PUT', '/key', 'a value')).status).toBe(204);
    expect((await http(endpoint, 'GET', '/key')).body.toString()).toBe('a value');
    expect((await http(endpoint, 'GET', '/')).body.toString()).toBe('1');
  },
};

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-images-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Boots `image` in a namespace of its own, waits until it serves, and ends it after `use`. */
async function withGuest(
  image: Image,
  profile: Partial<MachineProfile>,
  use: (endpoint: Endpoint, qemu: QemuProcess) => Promise<void>,
): Promise<void> {
  const namespace = await NetworkNamespace.create();
  try {
    await namespace.addTap('tap0', '10.0.0.1/24');
    const serialFile = join(folder, 'serial.log');
    const args = machineArguments({
      machine: 'pc',
      lockstep: false,
      memoryBytes: image.memoryBytesMin,
      vcpus: 1,
      kernel: image.kernel,
      initrd: image.initrd,
      appendExtra: [...image.kernelArguments, `gaia.ip=${guestAddress}/24`, 'gaia.gw=10.0.0.1'],
      mac: '52:54:00:00:00:02',
      tapName: 'tap0',
      rtcBase: '2026-01-01T00:00:00',
      serialFile,
      ...profile,
    });
    const qemu = new QemuProcess({ args, serialFile, namespace });
    try {
      await qemu.waitForSerial(image.readyMarker ?? '', bootTimeoutMs);
      await use({ namespace, host: guestAddress, port: image.port ?? 0 }, qemu);
      expect(qemu.stderr).toBe('');
    } finally {
      await qemu.stop();
    }
  } finally {
    await namespace.remove();
  }
}

describe.skipIf(whyImpossible !== undefined)(`guest images (${whyImpossible ?? 'root'})`, () => {
  for (const [name, check] of Object.entries(services)) {
    for (const profile of profiles) {
      const mode = profile.lockstep ? 'in lockstep' : 'free-running';
      it(`${name} serves its clients from a ${profile.machine} ${mode} with the least memory`, async () => {
        await withGuest(await buildImage(name), profile, check);
      });
    }
  }

  it('a recipe of the user becomes an image like the built-in ones', async () => {
    const cacheFolder = await cacheWithSharedPackages('own');
    const image = await buildImage(await ownRecipe({}), { cacheFolder });
    await withGuest(image, {}, async (endpoint) => {
      expect((await http(endpoint, 'GET', '/')).status).toBe(200);
    });
  });

  it('the power button ends the service in good order and powers the guest off', async () => {
    const qmpPath = join(folder, 'qmp.sock');
    const image = await buildImage('memcached');
    for (const profile of profiles) {
      await withGuest(image, { ...profile, qmpPath }, async (_endpoint, qemu) => {
        const qmp = connect(qmpPath);
        await once(qmp, 'data');
        qmp.write('{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}');
        await qemu.waitForExit();
        qmp.destroy();
        expect(qemu.serial).toContain('GAIA-EXITED memcached 0');
      });
    }
  });
});

describe('image builds', () => {
  it('the same recipe and packages give the same bytes in another place', async () => {
    await buildImage('memcached');
    const first = await buildImage('memcached', { cacheFolder: await cacheWithSharedPackages('first') });
    const second = await buildImage('memcached', { cacheFolder: await cacheWithSharedPackages('second') });
    expect(first.packages).toEqual(second.packages);
    expect(first.initrd).not.toBe(second.initrd);
    expect(first.initrdSha256).toBe(second.initrdSha256);
  });

  it('a build that ends half-way leaves nothing, and the next one succeeds', async () => {
    const cacheFolder = await cacheWithSharedPackages('interrupted');
    const controller = new AbortController();
    const interrupted = buildImage('memcached', {
      cacheFolder,
      signal: controller.signal,
      onProgress: ({ text }) => {
        if (text === 'packing the initramfs') controller.abort(new Error('interrupted'));
      },
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    expect(await readdir(join(cacheFolder, 'images/memcached'))).toEqual([]);
    expect((await buildImage('memcached', { cacheFolder })).name).toBe('memcached');
  });

  it('a package that does not exist is named', async () => {
    const recipe = await ownRecipe({ packages: ['no-such-package-at-all'] });
    const cacheFolder = await cacheWithSharedPackages('unknown-package');
    await expect(buildImage(recipe, { cacheFolder })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_PACKAGE',
      message: expect.stringContaining('"no-such-package-at-all"') as string,
    });
  });

  it('a second build of an image that is there does nothing', async () => {
    const texts: string[] = [];
    await buildImage('memcached');
    await buildImage('memcached', { onProgress: ({ text }) => texts.push(text) });
    expect(texts).toEqual([]);
  });
});

/** The file of a recipe for one static page. */
async function ownRecipe(changes: object): Promise<string> {
  const file = join(folder, 'own.json');
  const recipe = {
    name: 'gaia-test-own',
    files: [{ path: '/srv/index.html', text: 'own page\n' }],
    start: 'exec httpd -f -p 8080 -h /srv',
    ready: 'wget -q -O /dev/null http://127.0.0.1:8080/',
    protocol: 'http',
    port: 8080,
    memoryBytesMin: 128 << 20,
    ...changes,
  };
  await writeFile(file, JSON.stringify(recipe));
  return file;
}

/** An empty cache that need not download again what the machine's own cache has. */
async function cacheWithSharedPackages(name: string): Promise<string> {
  const cacheFolder = join(folder, name);
  const packages = join(defaultCacheFolder(), 'packages');
  await mkdir(packages, { recursive: true });
  await mkdir(cacheFolder);
  await symlink(packages, join(cacheFolder, 'packages'));
  return cacheFolder;
}
