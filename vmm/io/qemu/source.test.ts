import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { cachedSource, checkSource, chooseVersion, fetchSource } from './source.ts';

const upstream = { package: 'qemu', versionPrefix: '1:7.2+dfsg-7+deb12u' };
const v = (update: number): string => `${upstream.versionPrefix}${update}`;

describe('the version to build', () => {
  test('is the newest update of the wanted release, by number and not by letter', () => {
    expect(chooseVersion([v(9), v(18), v(10), '1:10.0.2+ds-2'], upstream)).toBe(v(18));
  });

  test('of another upstream release is refused by name', () => {
    expect(() => chooseVersion(['1:10.0.2+ds-2+deb13u1'], upstream)).toThrow(
      expect.objectContaining({
        code: 'GAIA_QEMU_RELEASE',
        message:
          "Debian's archive offers QEMU 1:10.0.2+ds-2+deb13u1, and the patches are written for 1:7.2+dfsg-7+deb12uN: build on Debian 12 (bookworm)",
      }),
    );
  });

  test('is asked for by name when the archive has none at all', () => {
    expect(() => chooseVersion([], upstream)).toThrow(
      expect.objectContaining({ code: 'GAIA_QEMU_SOURCE_MISSING' }),
    );
  });
});

describe('sources in the cache', () => {
  let cacheFolder: string;
  beforeEach(() => {
    cacheFolder = mkdtempSync(join(tmpdir(), 'gaia-source-'));
  });
  afterEach(() => rmSync(cacheFolder, { recursive: true, force: true }));

  function putSource(name: string, version: string): void {
    const folder = join(cacheFolder, 'qemu/source', name);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'qemu.dsc'), version);
    const dscSha256 = createHash('sha256').update(version).digest('hex');
    writeFileSync(
      join(folder, 'source.json'),
      JSON.stringify({ version, dscFile: 'qemu.dsc', dscSha256, verified: 'yes' }),
    );
  }

  test('are found newest first, and an unfinished download is none', () => {
    expect(cachedSource(cacheFolder, upstream)).toBeUndefined();
    mkdirSync(join(cacheFolder, 'qemu/source/.partial-7.2'), { recursive: true });
    expect(cachedSource(cacheFolder, upstream)).toBeUndefined();
    putSource('a', v(9));
    putSource('b', v(18));
    putSource('c', '1:10.0.2+ds-2');
    expect(cachedSource(cacheFolder, upstream)?.version).toBe(v(18));
  });

  test('that were changed after their verification are refused', () => {
    putSource('a', v(18));
    const source = cachedSource(cacheFolder, upstream);
    if (source === undefined) throw new Error('The source was just put there');
    expect(() => checkSource(source)).not.toThrow();
    writeFileSync(join(source.folder, source.dscFile), 'something else');
    expect(() => checkSource(source)).toThrow(expect.objectContaining({ code: 'GAIA_QEMU_SOURCE_CHANGED' }));
  });

  test('are not asked of machines without an entry for Debian, which are told so', async () => {
    const aptFolder = join(cacheFolder, 'apt');
    mkdirSync(aptFolder);
    writeFileSync(join(aptFolder, 'sources.list'), 'deb https://vendor.example/apt stable main\n');
    await expect(fetchSource({ cacheFolder, upstream, aptFolder })).rejects.toMatchObject({
      code: 'GAIA_APT_ENTRIES',
    });
  });
});
