import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { projectFolder } from '../project-folder.ts';
import { buildId, configureFlags, parseUpstream, readRecipe, type QemuRecipe } from './recipe.ts';

const patch = { name: '0001-a.patch', file: '/a', content: Buffer.from('diff') };
const recipe: QemuRecipe = {
  upstream: { package: 'qemu', versionPrefix: '1:7.2+dfsg-7+deb12u' },
  flags: ['--one', '--two'],
  patches: [patch],
  devices: Buffer.from('CONFIG_MICROVM=y'),
  layout: Buffer.from('#define GAIA'),
};
const version = '1:7.2+dfsg-7+deb12u18';

describe('the build id', () => {
  test('stays the same for the same inputs and is sixteen hexadecimal digits', () => {
    expect(buildId(recipe, version)).toBe(buildId({ ...recipe }, version));
    expect(buildId(recipe, version)).toMatch(/^[0-9a-f]{16}$/);
  });

  test.each<[string, QemuRecipe, string]>([
    ['the source version', recipe, '1:7.2+dfsg-7+deb12u19'],
    ['a flag', { ...recipe, flags: ['--one', '--three'] }, version],
    ['the order of flags', { ...recipe, flags: ['--two', '--one'] }, version],
    ['two flags run together', { ...recipe, flags: ['--one--two'] }, version],
    ['a patch is gone', { ...recipe, patches: [] }, version],
    ['a patch has another name', { ...recipe, patches: [{ ...patch, name: '0002-a.patch' }] }, version],
    [
      'a patch has another byte',
      { ...recipe, patches: [{ ...patch, content: Buffer.from('dif!') }] },
      version,
    ],
    ['the devices', { ...recipe, devices: Buffer.from('CONFIG_Q35=y') }, version],
    ['the layout', { ...recipe, layout: Buffer.from('#define GAIA 2') }, version],
  ])('changes with %s', (_what, changed, changedVersion) => {
    expect(buildId(changed, changedVersion)).not.toBe(buildId(recipe, version));
  });

  test('does not depend on where the project lies', () => {
    const moved = recipe.patches.map((item) => ({ ...item, file: '/elsewhere/a' }));
    expect(buildId({ ...recipe, patches: moved }, version)).toBe(buildId(recipe, version));
  });
});

describe('the recipe of a project', () => {
  let project: string;
  beforeEach(() => {
    project = mkdtempSync(join(tmpdir(), 'gaia-recipe-'));
    mkdirSync(join(project, 'qemu-patches'));
    mkdirSync(join(project, 'native'));
    writeFileSync(join(project, 'qemu-patches/UPSTREAM'), 'Source: qemu\nVersions: 1:7.2+dfsg-7+deb12u*\n');
    writeFileSync(join(project, 'qemu-patches/gaia.mak'), 'CONFIG_MICROVM=y\n');
    writeFileSync(join(project, 'native/gaia-layout.h'), '');
  });
  afterEach(() => rmSync(project, { recursive: true, force: true }));

  test('takes the patches in the order of the series and leaves comments out', () => {
    writeFileSync(join(project, 'qemu-patches/series'), '# first\n0002-b.patch\n\n0001-a.patch # why\n');
    writeFileSync(join(project, 'qemu-patches/0001-a.patch'), 'a');
    writeFileSync(join(project, 'qemu-patches/0002-b.patch'), 'b');
    expect(readRecipe(project).patches.map(({ name }) => name)).toEqual(['0002-b.patch', '0001-a.patch']);
  });

  test('has no patches when there is no series', () => {
    expect(readRecipe(project).patches).toEqual([]);
  });

  test('refuses a series that names a missing patch', () => {
    writeFileSync(join(project, 'qemu-patches/series'), '0001-gone.patch\n');
    expect(() => readRecipe(project)).toThrow(
      expect.objectContaining({
        code: 'GAIA_QEMU_SERIES',
        message: expect.stringContaining('0001-gone.patch') as string,
      }),
    );
  });

  test('of this repository is complete, and every flag has its reason', () => {
    const own = readRecipe(projectFolder());
    expect(own.upstream.package).toBe('qemu');
    expect(own.devices.toString()).toContain('CONFIG_MICROVM=y');
    expect(configureFlags.filter(({ why }) => why.length < 10)).toEqual([]);
  });
});

test.each(['', 'Source: qemu', 'Source: qemu\nVersions: 1:7.2', 'Versions: 1:7.2*'])(
  'an UPSTREAM file that says %j is refused',
  (text) => {
    expect(() => parseUpstream(text)).toThrow(expect.objectContaining({ code: 'GAIA_QEMU_UPSTREAM' }));
  },
);
