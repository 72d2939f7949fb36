import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  checkHashing,
  checkLockedMemory,
  checkMachine,
  checkMemory,
  checkNode,
  checkPrivilege,
  checkTun,
} from './machine-check.ts';

test.each([
  ['20.19.0', 'ok'],
  ['22.1.0', 'ok'],
  ['20.18.9', 'blocker'],
  ['18.20.0', 'blocker'],
])('Node %s is %s', (version, verdict) => {
  expect(checkNode(version).verdict).toBe(verdict);
});

test('a machine without tun cannot run VMs, and is told how to get it', () => {
  expect(checkTun('/nonexistent/tun')).toEqual({
    name: 'tun',
    verdict: 'blocker',
    value: '/nonexistent/tun does not open (ENOENT)',
    remedy: 'run "modprobe tun"; in a container, start it with --device /dev/net/tun',
  });
});

test('a process without CAP_NET_ADMIN is told to run as root', () => {
  expect(checkPrivilege('CapEff:\t000001ffffffffff\n').verdict).toBe('ok');
  expect(checkPrivilege('CapEff:\t0000000000001000\n').verdict).toBe('ok');
  expect(checkPrivilege('CapEff:\t0000000000000000\n')).toMatchObject({ verdict: 'blocker' });
});

test.each([
  [4_000_000, 'ok'],
  [1_500_000, 'limit'],
  [500_000, 'blocker'],
])('%i kB of available memory are %s', (kilobytes, verdict) => {
  expect(checkMemory(`MemTotal: 1 kB\nMemAvailable:   ${kilobytes} kB\n`).verdict).toBe(verdict);
});

test('little lockable memory is a limit, not a blocker', () => {
  const line = (soft: string): string => `Max locked memory         ${soft}              8388608     bytes\n`;
  expect(checkLockedMemory(line('8388608'))).toMatchObject({ verdict: 'limit', value: '8 MiB' });
  expect(checkLockedMemory(line('unlimited')).verdict).toBe('ok');
});

test('the fastest way of hashing that the processor has is named', () => {
  expect(checkHashing(new Set(['avx512f', 'avx512vl', 'avx2'])).value).toBe('AVX-512');
  expect(checkHashing(new Set(['avx2', 'sse4_1']))).toMatchObject({ verdict: 'ok', value: 'AVX2' });
  expect(checkHashing(new Set(['sse4_1']))).toMatchObject({ verdict: 'limit', value: 'SSE 4.1' });
  expect(checkHashing(new Set())).toMatchObject({ verdict: 'limit', value: 'portable code' });
});

test('every line has a name of its own, and a remedy unless all is well', async () => {
  const root = mkdtempSync(join(tmpdir(), 'gaia-check-'));
  try {
    const lines = await checkMachine({
      folders: { run: join(root, 'run'), state: join(root, 'lib'), cache: join(root, 'cache') },
    });
    expect(new Set(lines.map(({ name }) => name)).size).toBe(lines.length);
    expect(lines.filter(({ verdict, remedy }) => (verdict === 'ok') !== (remedy === undefined))).toEqual([]);
    expect(lines.find(({ name }) => name === 'qemu')).toMatchObject({
      verdict: 'blocker',
      value: expect.stringContaining('No patched QEMU') as string,
      remedy: expect.stringMatching(/^run ".*qemu build"$/) as string,
    });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
