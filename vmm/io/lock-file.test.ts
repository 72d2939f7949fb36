import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { takeLock } from './lock-file.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-lock-'));
  path = join(folder, 'lock');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a lock has one holder, and is free again when that one gives it back', () => {
  const first = takeLock(path);
  expect(takeLock(path)).toEqual({ holderPid: process.pid });
  expect('release' in first).toBe(true);
  if ('release' in first) first.release();
  expect(existsSync(path)).toBe(false);
  expect('release' in takeLock(path)).toBe(true);
});

test('a holder that is dead is replaced', () => {
  const { pid } = spawnSync('true');
  writeFileSync(path, `${pid} 12345\n`);
  expect('release' in takeLock(path)).toBe(true);
});

test('a living process that merely got the pid of a dead holder does not hold the lock', () => {
  writeFileSync(path, `${process.pid} 1\n`);
  expect('release' in takeLock(path)).toBe(true);
});

test('a torn lock file of a crashed machine is replaced', () => {
  writeFileSync(path, '');
  expect('release' in takeLock(path)).toBe(true);
});

test('nothing but the lock itself is left beside it', () => {
  writeFileSync(path, '999999999 1\n');
  takeLock(path);
  expect(readdirSync(folder)).toEqual(['lock']);
});

test('the draft of a holder that was killed as it took the lock goes with its lock', () => {
  const { pid } = spawnSync('true');
  writeFileSync(path, `${pid} 12345\n`);
  writeFileSync(`${path}.${pid}`, `${pid} 12345\n`);
  takeLock(path);
  expect(readdirSync(folder)).toEqual(['lock']);
});
