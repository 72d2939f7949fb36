import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { gaiaVersion, projectFolder, selfCommand } from './project-folder.ts';

const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-path-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('the project folder holds package.json, and its version is the one reported', () => {
  expect(existsSync(join(projectFolder(), 'package.json'))).toBe(true);
  expect(gaiaVersion()).toMatch(/^\d+\.\d+\.\d+/);
});

test('without a gaia-vm on the path remedies name the file itself', () => {
  expect(selfCommand({ PATH: folder })).toMatch(/^node .*dist\/cli\/gaia-vm\.js$/);
});

test('another program of that name is not mistaken for this one', () => {
  writeFileSync(join(folder, 'gaia-vm'), '');
  chmodSync(join(folder, 'gaia-vm'), 0o755);
  expect(selfCommand({ PATH: folder })).toMatch(/^node /);
});

test.runIf(existsSync(entry))('remedies are called the way the operator called (needs dist/)', () => {
  symlinkSync(entry, join(folder, 'gaia-vm'));
  expect(selfCommand({ PATH: ['/nonexistent', folder].join(delimiter) })).toBe('gaia-vm');
  const bin = join(folder, 'node_modules/.bin');
  mkdirSync(bin, { recursive: true });
  symlinkSync(entry, join(bin, 'gaia-vm'));
  expect(selfCommand({ PATH: bin })).toBe('npx gaia-vm');
});
