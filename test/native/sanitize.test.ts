import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildAddon, plainEnvironment, repository } from './addon.ts';
import { PortFolder } from './port-peer.ts';

const build = join(repository, 'native/build-sanitize');
const limitMs = 300_000;
const portFolder = new PortFolder();
const canaryFolder = mkdtempSync(join(tmpdir(), 'gaia-canary-'));
const canary = join(canaryFolder, 'canary.node');

/** Node itself is not instrumented, so the libraries must be there before it starts. */
const libraries = ['libasan.so', 'libubsan.so'].map((name) =>
  execFileSync('gcc', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim(),
);

interface Ended {
  readonly status: number | null;
  readonly output: string;
}

/** Runs Node with `args` under the sanitizers. */
function sanitized(args: readonly string[], asanOptions: string, more: NodeJS.ProcessEnv = {}): Ended {
  const ended = spawnSync(process.execPath, args, {
    cwd: repository,
    encoding: 'utf8',
    env: {
      ...process.env,
      LD_PRELOAD: libraries.join(' '),
      ASAN_OPTIONS: asanOptions,
      UBSAN_OPTIONS: 'print_stacktrace=1',
      GAIA_NATIVE_BUILD: join(build, 'Release'),
      NODE_OPTIONS: '',
      ...more,
    },
  });
  return { status: ended.status, output: ended.stdout + ended.stderr };
}

beforeAll(() => {
  buildAddon(build, ['GAIA_SANITIZE=ON']);
  const source = join(import.meta.dirname, 'sanitizer-canary.c');
  const flags = ['-shared', '-fPIC', '-fsanitize=address'];
  execFileSync('gcc', [...flags, '-o', canary, source], { env: plainEnvironment });
}, limitMs);

afterAll(() => {
  portFolder.remove();
  rmSync(canaryFolder, { recursive: true });
});

describe('the sanitizers', () => {
  const load = ['-e', `try { require(${JSON.stringify(canary)}); } catch {}`];

  it('notice a write past the end and a leak in what Node loads, and nothing in Node itself', () => {
    const overflow = sanitized(load, 'detect_leaks=1', { GAIA_CANARY: 'overflow' });
    expect(overflow.output).toContain('AddressSanitizer: heap-buffer-overflow');
    expect(overflow.status).not.toBe(0);
    const leak = sanitized(load, 'detect_leaks=1', { GAIA_CANARY: 'leak' });
    expect(leak.output).toContain('Direct leak of 100 byte(s)');
    expect(leak.status).not.toBe(0);
    expect(sanitized(['-e', '0'], 'detect_leaks=1')).toEqual({ status: 0, output: '' });
  });
});

describe('the addon under AddressSanitizer and UndefinedBehaviorSanitizer', () => {
  // Vitest ends its workers without a chance to look for leaks: the exercise below does that.
  it(
    'passes every other test of this folder',
    () => {
      const vitest = join(repository, 'node_modules/vitest/vitest.mjs');
      const left = ['sanitize', 'build', 'transport'].map((name) => `--exclude=test/native/${name}.test.ts`);
      const ended = sanitized([vitest, 'run', '--project', 'native', ...left], 'detect_leaks=0');
      expect(ended.output).not.toMatch(/Sanitizer|runtime error/);
      expect(ended).toMatchObject({ status: 0 });
    },
    limitMs,
  );

  it(
    'carries consensus over a fabric',
    () => {
      const vitest = join(repository, 'node_modules/vitest/vitest.mjs');
      const args = [vitest, 'run', '--project', 'native', 'test/native/transport.test.ts', '-t', 'fabric'];
      const ended = sanitized(args, 'detect_leaks=0');
      expect(ended.output).not.toMatch(/Sanitizer|runtime error/);
      expect(ended).toMatchObject({ status: 0 });
    },
    limitMs,
  );

  it(
    'leaks nothing on the main thread and in threads that end or are terminated',
    () => {
      const exercise = fileURLToPath(new URL('./leak-exercise.mjs', import.meta.url));
      const file = join(build, 'Release/gaia_native.node');
      const args = [exercise, file, portFolder.program, portFolder.path];
      expect(sanitized(args, 'detect_leaks=1')).toEqual({ status: 0, output: 'exercised\n' });
    },
    limitMs,
  );
});
