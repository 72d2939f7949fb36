import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildQemu } from '../../vmm/io/qemu/build.ts';
import { buildId, readRecipe } from '../../vmm/io/qemu/recipe.ts';
import { cachedSource } from '../../vmm/io/qemu/source.ts';
import { repository, SourceTree, type RunningProgram } from '../framework/source-tree.ts';

const isRoot = process.getuid?.() === 0;
const needsRoot = 'network namespaces and small disks need root';
const entry = join(repository, 'dist/cli/gaia-vm.js');

let tree: SourceTree;
beforeEach(() => {
  tree = SourceTree.create(['qemu-patches', 'native/gaia-layout.h']);
});
afterEach(() => {
  spawnSync('umount', ['--lazy', tree.cache()], { stdio: 'ignore' });
  tree.remove();
});

function build(): RunningProgram {
  return tree.start(process.execPath, [entry, 'qemu', 'build']);
}

/** Everything below the cache's qemu/ that a reader could take for a build, or that a build left behind. */
function leftovers(): string[] {
  return existsSync(tree.cache('qemu'))
    ? readdirSync(tree.cache('qemu')).filter((name) => name !== 'apt' && name !== 'source')
    : [];
}

/** The newest source in the test's own cache, downloaded first where this machine has none yet. */
async function sourceVersion(): Promise<string> {
  tree.takeQemuSource();
  const { upstream } = readRecipe(repository);
  const cached = cachedSource(tree.cache(), upstream);
  if (cached !== undefined) return cached.version;
  const running = build();
  await running.prints('unpacking');
  await running.interrupt();
  return cachedSource(tree.cache(), upstream)?.version ?? 'none';
}

describe('a build that cannot be', () => {
  test('without a network says so in one line and leaves nothing', async ({ skip }) => {
    skip(!isRoot, needsRoot);
    const { exitCode, stdout, stderr } = await tree.start('unshare', [
      '--net',
      process.execPath,
      entry,
      'qemu',
      'build',
    ]).ended;
    expect(stderr).toMatch(
      /^gaia-vm: Debian's archive cannot be reached \([^\n]+\): check the network and run the command again$/m,
    );
    expect({ exitCode, stdout, left: leftovers() }).toEqual({ exitCode: 1, stdout: '', left: [] });
  });

  test('on a small disk says beforehand how much it needs', async ({ skip }) => {
    skip(!isRoot, needsRoot);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'gaia-test', tree.cache()]);
    const { exitCode, stderr } = await build().ended;
    expect(stderr).toMatch(
      /^gaia-vm: Building QEMU needs 700 MiB below \S+ and 1[0-9] MiB are free: free some space, or set GAIA_ROOT/m,
    );
    expect({ exitCode, left: leftovers() }).toEqual({ exitCode: 1, left: [] });
  });

  test('on a disk that fills up halfway says so and frees what it took', async ({ skip }) => {
    skip(!isRoot, needsRoot);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=150m', 'gaia-test', tree.cache()]);
    // As an interrupted build on a larger disk left it: what is needed beforehand is not asked again.
    mkdirSync(tree.cache('qemu/work'), { recursive: true });
    await sourceVersion();
    const { exitCode, stderr } = await build().ended;
    expect(stderr).toMatch(/^gaia-vm: The disk below \S+ is full: free some space, or set GAIA_ROOT/m);
    expect({ exitCode, left: leftovers() }).toEqual({ exitCode: 1, left: [] });
  });

  test('with a patch that applies only with fuzz is refused, and names the patch', async () => {
    await sourceVersion();
    const patch = [
      'qemu: a patch that has gone stale',
      '--- a/README.rst',
      '+++ b/README.rst',
      '@@ -1,6 +1,6 @@',
      ' ===========',
      '-QEMU README',
      '+GAIA README',
      ' ===========',
      ' ',
      ' A line that was there when the patch was written',
      ' virtualizer.',
      '',
    ].join('\n');
    writeFileSync(tree.path('qemu-patches/0001-stale.patch'), patch);
    writeFileSync(tree.path('qemu-patches/series'), '0001-stale.patch\n');
    cpSync(join(repository, 'package.json'), tree.path('package.json'));
    await expect(buildQemu({ cacheFolder: tree.cache(), project: tree.folder })).rejects.toMatchObject({
      code: 'GAIA_QEMU_PATCH',
      message: expect.stringMatching(
        /^qemu-patches\/0001-stale\.patch does not apply to QEMU 1:7\.2\S+ without fuzz \(.*FAILED.*\): rebase/,
      ) as string,
    });
    // The log is all that stays.
    const work = readdirSync(tree.cache('qemu/work')).map((id) => join(tree.cache('qemu/work'), id));
    const kept = new Set(work.flatMap((folder) => readdirSync(folder)));
    expect([...kept].sort()).toEqual(['build.log', 'processes.lock']);
  });
});

test(
  'a build killed while unpacking, configuring and compiling is carried on by the next, and never looks finished',
  { timeout: 900_000 },
  async () => {
    const id = buildId(readRecipe(repository), await sourceVersion());
    const work = join(tree.cache('qemu/work'), id);

    const unpacking = build();
    await unpacking.makes(join(work, 'draft/tree'));
    await unpacking.kill();
    expect(existsSync(join(work, 'tree'))).toBe(false);

    const configuring = build();
    await configuring.makes(join(work, 'build/config.log'));
    await configuring.kill();
    expect(existsSync(join(work, 'configured'))).toBe(false);
    const unpackedAt = statSync(join(work, 'tree')).mtimeMs;

    const compiling = build();
    await compiling.makes(join(work, 'build/trace/trace-backends_tpm.c'));
    await compiling.kill();
    // The kernel gives this lock away when ninja and all its compilers are gone.
    execFileSync('flock', [join(work, 'processes.lock'), 'true']);
    expect(statSync(join(work, 'tree')).mtimeMs).toBe(unpackedAt);
    const configuredAt = statSync(join(work, 'configured')).mtimeMs;

    const resumed = build();
    await resumed.prints('% ');
    const second = await build().ended;
    expect(second).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining(`gaia-vm: Process ${resumed.pid} is building QEMU`) as string,
    });
    const { exitCode, stderr } = await resumed.interrupt();
    expect(stderr).toContain('gaia-vm: Interrupted: run the command again to carry on');
    expect(exitCode).toBe(130);
    expect(statSync(join(work, 'configured')).mtimeMs).toBe(configuredAt);
    expect(leftovers()).toEqual(['work']);
    // What the killed run had compiled is not compiled again.
    const [firstSteps = 0, resumedSteps] = stepsOfRuns(readFileSync(join(work, 'build.log'), 'utf8'));
    expect(resumedSteps).toBeLessThan(firstSteps);
  },
);

/** How many steps each run of ninja had before it. */
function stepsOfRuns(log: string): number[] {
  return [...log.matchAll(/^\[1\/(\d+)\]/gm)].map((match) => Number(match[1]));
}
