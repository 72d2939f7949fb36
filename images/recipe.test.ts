import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { builtInRecipeNames, findRecipe, generatedContents, loadRecipe, recipeHash } from './recipe.ts';

const valid = {
  name: 'own-service',
  packages: ['memcached'],
  start: 'exec memcached',
  ready: 'true',
  protocol: 'memcached',
  port: 11_211,
  memoryBytesMin: 128 << 20,
};

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-recipe-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function recipeFile(contents: unknown): Promise<string> {
  const file = join(folder, 'recipe.json');
  await writeFile(file, typeof contents === 'string' ? contents : JSON.stringify(contents));
  return file;
}

describe('recipes', () => {
  it('all built-in recipes are well-formed and bear the name of their file', async () => {
    const names = await builtInRecipeNames();
    expect(names).toEqual(['mariadb', 'memcached', 'nginx', 'node-sqlite', 'redis']);
    for (const name of names) expect((await findRecipe(name)).name).toBe(name);
  });

  it('an unknown image is refused with the list of those that exist', async () => {
    await expect(findRecipe('memcache')).rejects.toMatchObject({
      code: 'GAIA_IMAGE_UNKNOWN',
      message: expect.stringMatching(/"memcache".*mariadb, memcached, nginx, node-sqlite, redis/) as string,
    });
  });

  it('an own recipe needs no more than packages, a start, a probe, a port and memory', async () => {
    const recipe = await loadRecipe(await recipeFile(valid));
    expect(recipe).toMatchObject({ ...valid, users: [], files: [], modules: [], kernelArguments: [] });
  });

  it.each<[string, Record<string, unknown>]>([
    ['name', { name: 'Own Service' }],
    ['name', { name: 'memcached' }],
    ['packages', { packages: 'memcached' }],
    ['packages', { packages: ['-o Dir=/'] }],
    ['port', { port: 0 }],
    ['port', { port: undefined }],
    ['memoryBytesMin', { memoryBytesMin: 1 }],
    ['start', { start: 'a\nb' }],
    ['ready', { ready: undefined }],
    ['command', { command: 'x' }],
    ['users[0].id', { users: [{ name: 'x', id: 0 }] }],
    ['files[0].path', { files: [{ path: '/../etc/passwd', text: '' }] }],
    ['files[0].path', { files: [{ path: 'relative', text: '' }] }],
    ['files[0].mode', { files: [{ path: '/x', text: '', mode: '999' }] }],
    ['files[0].text', { files: [{ path: '/x', text: '', generatedBytes: 1 }] }],
    ['files[0].source', { files: [{ path: '/x', source: 'absent' }] }],
    ['files[0].generatedBytes', { files: [{ path: '/x', generatedBytes: -1 }] }],
    ['drop', { drop: ['/usr/../..'] }],
    ['modules', { modules: ['a/b'] }],
    ['kernelArguments', { kernelArguments: ['a b'] }],
  ])('a broken field is named: %s in %j', async (field, change) => {
    const file = await recipeFile({ ...valid, ...change });
    await expect(loadRecipe(file)).rejects.toMatchObject({
      code: 'GAIA_IMAGE_RECIPE',
      message: expect.stringContaining(`field "${field}"`) as string,
    });
  });

  it.each(['{', '[]', 'null', '"text"'])('a file that is no recipe at all is refused: %s', async (text) => {
    await expect(loadRecipe(await recipeFile(text))).rejects.toMatchObject({ code: 'GAIA_IMAGE_RECIPE' });
  });

  it('a missing recipe file is refused with its path', async () => {
    await expect(findRecipe(join(folder, 'absent.json'))).rejects.toThrow(/absent\.json does not exist/);
  });

  it('the hash changes with every field and with the contents of files, and with nothing else', async () => {
    const source = join(folder, 'source');
    const hashWith = async (change: object, contents: string): Promise<string> => {
      await writeFile(source, contents);
      const files = [{ path: '/srv/x', source: 'source' }];
      return recipeHash(await loadRecipe(await recipeFile({ ...valid, files, ...change })));
    };
    const hash = await hashWith({}, 'a');
    expect(await hashWith({}, 'a')).toBe(hash);
    expect(await hashWith({}, 'b')).not.toBe(hash);
    expect(await hashWith({ port: 1 }, 'a')).not.toBe(hash);
  });

  it('generated contents have the asked length, are the same every time and differ by path', () => {
    const contents = generatedContents('srv/a', 100);
    expect(contents).toHaveLength(100);
    expect(generatedContents('srv/a', 100)).toEqual(contents);
    expect(generatedContents('srv/b', 100)).not.toEqual(contents);
  });
});
