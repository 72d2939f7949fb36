import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, describe, expect, test } from 'vitest';
import { repository } from '../framework/source-tree.ts';

const root = mkdtempSync(join(tmpdir(), 'gaia-cli-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

async function gaiaVm(
  ...words: string[]
): Promise<{ exitCode: number | undefined; stdout: string; stderr: string }> {
  const entry = join(repository, 'dist/cli/gaia-vm.js');
  const result = await execa(process.execPath, [entry, ...words], {
    reject: false,
    env: { GAIA_ROOT: root },
  });
  return { exitCode: result.exitCode, stdout: result.stdout, stderr: result.stderr };
}

describe('a call that makes no sense ends with exit code 2 and one line that says why', () => {
  test.each<[string, string[], RegExp]>([
    ['no command', [], /^gaia-vm: Which command\?/],
    ['an unknown command', ['bogus'], /^gaia-vm: Unknown argument: bogus/],
    ['an unknown option', ['check', '--bogus'], /^gaia-vm: Unknown argument: bogus/],
    ['half a command', ['qemu'], /^gaia-vm: Which of build, info and path\?/],
    ['an unknown half', ['qemu', 'bogus'], /^gaia-vm: Unknown argument: bogus/],
    ['one word too many', ['qemu', 'path', 'extra'], /^gaia-vm: Unknown argument: extra/],
    ['an unknown format', ['check', '-o', 'xml'], /^gaia-vm: Invalid values:/],
    ['no number of compilers', ['qemu', 'build', '-j', '0'], /^gaia-vm: --jobs takes a whole number/],
  ])('%s', async (_what, words, line) => {
    const { exitCode, stdout, stderr } = await gaiaVm(...words);
    expect(stderr).toMatch(line);
    expect(stderr).toContain('Try "gaia-vm --help"');
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
  });
});

test('--help of every command shows an example and ends well', async () => {
  const top = await gaiaVm('--help');
  expect(top).toMatchObject({ exitCode: 0, stderr: '' });
  expect(top.stdout).toContain('Exit codes: 0 done');
  for (const words of [['check'], ['qemu', 'build'], ['qemu', 'info'], ['qemu', 'path']]) {
    const { exitCode, stdout } = await gaiaVm(...words, '--help');
    expect({ words, exitCode }).toEqual({ words, exitCode: 0 });
    expect(stdout).toContain('Examples:');
  }
});

test('completion knows the commands', async () => {
  expect((await gaiaVm('completion')).stdout).toContain('complete -o');
  const { stdout } = await gaiaVm('--get-yargs-completions', 'gaia-vm', 'qemu', '');
  expect(stdout.split('\n')).toEqual(expect.arrayContaining(['build', 'info', 'path']));
});

test('without its QEMU gaia-vm says in one line what to run, with exit code 6', async () => {
  const { exitCode, stdout, stderr } = await gaiaVm('qemu', 'path');
  expect({ exitCode, stdout }).toEqual({ exitCode: 6, stdout: '' });
  expect(stderr).toMatch(/^gaia-vm: No patched QEMU is installed below [^\n]*: run "[^"\n]*qemu build"$/);
});

describe('gaia-vm check on a machine without QEMU and image', () => {
  test('ends with exit code 6 and names both, with their remedies, in JSON', async () => {
    const { exitCode, stdout } = await gaiaVm('check', '-o', 'json');
    expect(exitCode).toBe(6);
    const report = JSON.parse(stdout) as {
      schemaVersion: number;
      usable: boolean;
      checks: { name: string; verdict: string; value: string; remedy?: string }[];
    };
    expect(report).toMatchObject({ schemaVersion: 1, usable: false });
    const named = new Map(report.checks.map((check) => [check.name, check]));
    expect([...named.keys()]).toEqual(
      expect.arrayContaining(['node', 'kvm device', 'kvm for linux guests', 'tun', 'memory', 'cache disk']),
    );
    expect(named.get('qemu')).toMatchObject({
      verdict: 'blocker',
      remedy: expect.stringMatching(/qemu build"$/) as string,
    });
    expect(named.get('image memcached')).toMatchObject({
      verdict: 'blocker',
      remedy: expect.stringMatching(/image build memcached"$/) as string,
    });
  });

  test('is a table for people, without colour when it is not a terminal', async () => {
    const { stdout } = await gaiaVm('check');
    expect(stdout).toMatch(/^blocker {2}qemu {2,}No patched QEMU/m);
    expect(stdout).toMatch(/VMs from starting here/);
    expect(stdout).not.toContain('\x1b');
  });
});
