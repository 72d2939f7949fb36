import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { projectFolder } from '../project-folder.ts';
import { installFolder, installedBuilds, manifestName, programName, requireQemu } from './installed.ts';
import { buildId, readRecipe } from './recipe.ts';

let cacheFolder: string;
beforeEach(() => {
  cacheFolder = mkdtempSync(join(tmpdir(), 'gaia-installed-'));
});
afterEach(() => rmSync(cacheFolder, { recursive: true, force: true }));

const project = projectFolder();
const sourceVersion = '1:7.2+dfsg-7+deb12u18';
const wantedId = buildId(readRecipe(project), sourceVersion);
const otherId = '0123456789abcdef';

/** A stand-in for a QEMU: all that is asked of it is its version. */
function putProgram(file: string, printedId: string): void {
  writeFileSync(file, `#!/bin/sh\necho 'QEMU emulator version 7.2.22 (gaia-${printedId}, Debian)'\n`);
  chmodSync(file, 0o755);
}

function putBuild(id: string, printedId = id, version = sourceVersion): string {
  const folder = installFolder(cacheFolder, id);
  mkdirSync(folder, { recursive: true });
  const file = join(folder, programName);
  putProgram(file, printedId);
  const manifest = {
    buildId: id,
    sourceVersion: version,
    verified: '',
    patches: [],
    builtAt: '',
    buildSeconds: 1,
  };
  writeFileSync(join(folder, manifestName), JSON.stringify(manifest));
  return file;
}

test('the build that belongs to the patches at hand is found', async () => {
  putBuild(otherId);
  const file = putBuild(wantedId);
  await expect(requireQemu({ cacheFolder })).resolves.toMatchObject({ file, buildId: wantedId });
});

test('without any build the command that makes one is named', async () => {
  await expect(requireQemu({ cacheFolder })).rejects.toMatchObject({
    code: 'GAIA_QEMU_MISSING',
    message: expect.stringMatching(/^No patched QEMU is installed below .*: run ".*qemu build"$/) as string,
  });
});

test('a build of other patches is refused by its id', async () => {
  putBuild(otherId);
  await expect(requireQemu({ cacheFolder })).rejects.toMatchObject({
    code: 'GAIA_QEMU_MISSING',
    message: expect.stringContaining(otherId) as string,
    remedy: expect.stringMatching(/qemu build$/) as string,
  });
});

test('a build stays valid only as long as no patch changes', async () => {
  putBuild(wantedId);
  const changed = join(cacheFolder, 'project');
  for (const name of ['qemu-patches', 'native/gaia-layout.h'])
    cpSync(join(project, name), join(changed, name), { recursive: true });
  await expect(requireQemu({ cacheFolder, project: changed })).resolves.toMatchObject({ buildId: wantedId });
  writeFileSync(join(changed, 'native/gaia-layout.h'), '/* other */');
  await expect(requireQemu({ cacheFolder, project: changed })).rejects.toMatchObject({
    code: 'GAIA_QEMU_MISSING',
  });
});

test('a binary that prints another id than its folder says is refused', async () => {
  putBuild(wantedId, otherId);
  await expect(requireQemu({ cacheFolder })).rejects.toMatchObject({
    code: 'GAIA_QEMU_BUILD',
    message: expect.stringContaining(
      `is build ${otherId}, and this gaia-vm needs build ${wantedId}`,
    ) as string,
    remedy: expect.stringMatching(/qemu build --force$/) as string,
  });
});

test('an emulator named by hand is held to the same id', async () => {
  putBuild(wantedId);
  const file = join(cacheFolder, 'qemu-of-a-domain');
  putProgram(file, otherId);
  await expect(requireQemu({ cacheFolder, file })).rejects.toMatchObject({ code: 'GAIA_QEMU_BUILD' });
  putProgram(file, wantedId);
  await expect(requireQemu({ cacheFolder, file })).resolves.toMatchObject({ file });
  await expect(requireQemu({ cacheFolder, file: '/bin/true' })).rejects.toMatchObject({
    message: expect.stringContaining('/bin/true is no QEMU of gaia-vm') as string,
  });
});

test('folders that hold no finished build are not counted', () => {
  mkdirSync(installFolder(cacheFolder, otherId), { recursive: true });
  mkdirSync(join(cacheFolder, 'qemu/work/fedcba9876543210'), { recursive: true });
  expect(installedBuilds(cacheFolder)).toEqual([]);
});
