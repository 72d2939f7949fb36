import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { SourceTree, type RunningProgram } from '../framework/source-tree.ts';

const isRoot = process.getuid?.() === 0;
const needsRoot = 'changing users and network namespaces needs root';
const setupParts = ['cli/setup.mjs', 'cli/setup', 'package.json', 'package-lock.json', '.npmrc'];

/** Every program of the set-up is the real one here, with one exception: APT, as it would change this machine. */
class FakeApt {
  readonly folder: string;
  readonly calls: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly #gate: string;

  constructor(tree: SourceTree) {
    this.folder = join(dirname(tree.folder), 'bin');
    this.calls = join(this.folder, 'calls');
    this.#gate = join(this.folder, 'gate');
    const installed = join(this.folder, 'installed');
    mkdirSync(this.folder);
    chmodSync(dirname(this.folder), 0o755);
    spawnSync('mkfifo', [this.#gate]);
    this.#put('dpkg-query', `shift 2; [ -e ${installed} ] || exit 1; for name; do echo "ii  $name"; done`);
    // Stays in the middle of the installation until the gate opens.
    this.#put(
      'apt-get',
      `[ "$1" = install ] || exit 0; echo begin >>${this.calls}; cat ${this.#gate}; touch ${installed}; echo end >>${this.calls}`,
    );
    this.#put('sudo', 'shift; exec "$@"');
    this.environment = { PATH: [this.folder, process.env['PATH']].join(delimiter) };
  }

  #put(name: string, script: string): void {
    writeFileSync(join(this.folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  async openGate(): Promise<void> {
    await writeFile(this.#gate, '');
  }
}

let tree: SourceTree;
afterEach(() => tree.remove());

describe('the Debian packages', () => {
  let apt: FakeApt;
  beforeEach(() => {
    tree = SourceTree.create(setupParts);
    apt = new FakeApt(tree);
  });
  const packages = (): RunningProgram => tree.setup(['packages'], apt.environment);

  test('a set-up killed during the installation leaves APT alone, and the next one waits for it', async () => {
    const killed = packages();
    await killed.makes(apt.calls);
    await killed.kill();
    const next = packages();
    await next.prints('Debian packages: begins');
    await apt.openGate();
    await expect(next.ended).resolves.toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining('Debian packages: all are there') as string,
    });
    expect(readFileSync(apt.calls, 'utf8')).toBe('begin\nend\n');
  });

  test('two set-ups of one tree do not run together', async () => {
    const first = packages();
    await first.makes(apt.calls);
    const second = packages();
    await second.prints(`process ${first.pid} is setting up this tree: waiting`);
    await apt.openGate();
    await expect(first.ended).resolves.toMatchObject({ exitCode: 0 });
    await expect(second.ended).resolves.toMatchObject({ exitCode: 0 });
    expect(readFileSync(apt.calls, 'utf8')).toBe('begin\nend\n');
  });

  test('a user who may not install them gets the exact command and exit code 6', async ({ skip }) => {
    skip(!isRoot, needsRoot);
    const nobody = 65_534;
    for (const name of ['.', ...setupParts]) chownSync(tree.path(name), nobody, nobody);
    rmSync(join(apt.folder, 'sudo'));
    const path = [apt.folder, dirname(process.execPath), '/usr/bin'].join(delimiter);
    const words = ['--reuid', `${nobody}`, '--clear-groups', process.execPath, 'cli/setup.mjs', 'packages'];
    const { exitCode, stderr } = await tree.start('/usr/bin/setpriv', words, { PATH: path, SUDO_ASKPASS: '' })
      .ended;
    expect(stderr).toMatch(
      /^set-up: These Debian packages are missing and this user may not install them: run "apt-get install --no-install-recommends [a-z0-9. -]+" as root, then the same command again$/m,
    );
    expect(exitCode).toBe(6);
  });
});

describe('the npm packages', () => {
  beforeEach(() => {
    tree = SourceTree.create(setupParts);
    rmSync(tree.path('node_modules'), { recursive: true });
  });

  /** npm tries each package for itself, which makes the same failure a long one. */
  function onlyOnePackage(): void {
    const name = 'node-addon-api';
    const lock = JSON.parse(readFileSync(tree.path('package-lock.json'), 'utf8')) as {
      packages: Record<string, { version: string }>;
    };
    const entry = lock.packages[`node_modules/${name}`];
    const project = { name: 'one', version: '1.0.0', dependencies: { [name]: entry?.version } };
    const packages = { '': project, [`node_modules/${name}`]: entry };
    writeFileSync(tree.path('package.json'), JSON.stringify(project));
    writeFileSync(
      tree.path('package-lock.json'),
      JSON.stringify({ ...project, lockfileVersion: 3, packages }),
    );
  }

  test('a set-up killed during npm ci is made good by the next one', async () => {
    const killed = tree.setup(['npm']);
    await killed.makes(tree.path('node_modules/typescript/package.json'));
    await killed.kill();
    const { exitCode, stderr } = await tree.setup(['npm']).ended;
    expect(stderr).toContain('npm packages: installed');
    expect(exitCode).toBe(0);
    const list = spawnSync('npm', ['ls', '--all'], { cwd: tree.folder, encoding: 'utf8' });
    expect(list.status, list.stderr).toBe(0);
    await expect(tree.setup(['npm']).ended).resolves.toMatchObject({
      exitCode: 0,
      stderr: expect.stringContaining('npm packages: up to date') as string,
    });
  });

  test('without a network the set-up says so in one sentence', async ({ skip }) => {
    skip(!isRoot, needsRoot);
    onlyOnePackage();
    const words = ['--net', process.execPath, 'cli/setup.mjs', 'npm'];
    const { exitCode, stderr } = await tree.start('unshare', words, {
      npm_config_cache: join(tree.root, 'empty'),
    }).ended;
    expect(stderr).toMatch(
      /^set-up: npm packages could not be installed \(.+\): check the network and the disk, then run the same command again$/m,
    );
    expect(exitCode).toBe(1);
    expect(existsSync(tree.path('.setup/stamps/npm.done'))).toBe(false);
  });
});

describe('TypeScript', () => {
  beforeEach(() => {
    tree = SourceTree.create([...setupParts, 'tsconfig.json', 'tsconfig.build.json']);
    writeFileSync(tree.path('cli/gaia-vm.ts'), 'export const age = 1;\n');
  });
  const entry = (): string => readFileSync(tree.path('dist/cli/gaia-vm.js'), 'utf8');

  test('is compiled when a source changed, and only then', async () => {
    const build = async (): Promise<string> => (await tree.setup(['build']).ended).stderr;
    await expect(build()).resolves.toContain('TypeScript: compiled');
    await expect(build()).resolves.toContain('TypeScript: up to date');
    writeFileSync(tree.path('cli/gaia-vm.ts'), 'export const age = 2;\n');
    await expect(build()).resolves.toContain('TypeScript: compiled');
    expect(entry()).toContain('age = 2');
    rmSync(tree.path('dist/cli/gaia-vm.js'));
    await expect(build()).resolves.toContain('TypeScript: compiled');
  });

  test('a set-up killed while compiling leaves the old dist/ whole, and the next one brings the new', async () => {
    await tree.setup(['build']).ended;
    writeFileSync(tree.path('cli/gaia-vm.ts'), 'export const age = 2;\n');
    const killed = tree.setup(['build']);
    await killed.makes(tree.path('.setup-dist/.gitignore'));
    await killed.kill();
    expect(entry()).toContain('age = 1');
    await expect(tree.setup(['build']).ended).resolves.toMatchObject({ exitCode: 0 });
    expect(entry()).toContain('age = 2');
    expect(readdirSync(tree.folder).filter((name) => name.startsWith('.setup-'))).toEqual([]);
  });

  test('a source that does not compile is named in one sentence, and the old dist/ stays', async () => {
    await tree.setup(['build']).ended;
    writeFileSync(tree.path('cli/gaia-vm.ts'), "export const age: number = 'old';\n");
    const { exitCode, stderr } = await tree.setup(['build']).ended;
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^set-up: The sources do not compile \(cli\/gaia-vm\.ts\(1,14\): error TS2322:/m);
    expect(entry()).toContain('age = 1');
  });
});

describe('the addon', () => {
  beforeEach(() => {
    tree = SourceTree.create([...setupParts, 'native']);
  });

  test('a set-up killed while compiling is made good by the next one', async () => {
    const killed = tree.setup(['addon']);
    await killed.makes(tree.path('native/build/.ninja_log'));
    await killed.kill();
    const { exitCode, stderr } = await tree.setup(['addon']).ended;
    expect(stderr).toContain('native addon: built');
    expect(exitCode).toBe(0);
    const load = createRequire(import.meta.url);
    expect(load(tree.path('native/build/Release/gaia_native.node'))).toHaveProperty('crc32c');
    await expect(tree.setup(['addon']).ended).resolves.toMatchObject({
      stderr: expect.stringContaining('native addon: up to date') as string,
    });
  });
});

describe('what our own commands build', () => {
  let built: SourceTree;
  beforeAll(async () => {
    built = SourceTree.create();
    const { exitCode, stderr } = await built.setup(['build']).ended;
    expect(exitCode, stderr).toBe(0);
  });
  afterAll(() => built.remove());
  beforeEach(() => {
    // Only for its removal: these tests share the compiled tree.
    tree = SourceTree.create([]);
  });

  test('a set-up killed while it builds QEMU takes the builder along, and the next one carries on', async () => {
    built.takeQemuSource();
    const killed = built.setup(['qemu']);
    await killed.makes(built.cache('qemu/build.lock'));
    const [builder = ''] = readFileSync(built.cache('qemu/build.lock'), 'utf8').split(' ');
    await killed.kill();
    const next = built.setup(['qemu']);
    await next.makes(built.cache('qemu/work'));
    expect(existsSync(`/proc/${builder}/cwd`)).toBe(false);
    const { exitCode, stderr } = await next.interrupt();
    expect(stderr).toContain('patched QEMU: stopped');
    expect(stderr).toContain('set-up: Interrupted: run the same command again to carry on');
    expect(exitCode).toBe(130);
    // In good order: nobody holds the builder's lock, and nothing looks like a finished build.
    expect(readdirSync(built.cache('qemu')).filter((name) => /lock|^[0-9a-f]{16}$/.test(name))).toEqual([]);
  });

  test('a set-up killed while it builds the demo image is made good by the next one', async () => {
    const killed = built.setup(['image']);
    await killed.makes(built.cache('images'));
    await killed.kill();
    const { exitCode, stderr } = await built.setup(['image']).ended;
    expect(exitCode, stderr).toBe(0);
    const shown = await built.start(process.execPath, [
      'dist/cli/gaia-vm.js',
      'image',
      'show',
      'memcached',
      '-o',
      'json',
    ]).ended;
    expect(shown.exitCode, shown.stderr).toBe(0);
  });
});

describe('a call that makes no sense', () => {
  beforeEach(() => {
    tree = SourceTree.create(setupParts);
  });

  test.each<[string, string[]]>([
    ['no goal', []],
    ['an unknown goal', ['bogus']],
    ['a goal with words it does not take', ['build', 'bogus']],
  ])('%s ends with exit code 2 and the list of goals', async (_what, words) => {
    const { exitCode, stderr } = await tree.setup(words).ended;
    expect(stderr).toContain('Usage: node cli/setup.mjs GOAL');
    expect(exitCode).toBe(2);
  });

  test('an old Node is refused before anything is done', async () => {
    const older = "Object.defineProperty(process, 'versions', { value: { node: '18.20.0' } })";
    const words = ['--import', `data:text/javascript,${older}`, 'cli/setup.mjs', 'test'];
    const { exitCode, stderr } = await tree.start(process.execPath, words).ended;
    expect(stderr).toMatch(/^set-up: Node\.js 18\.20\.0 is too old: install 20\.19 or newer, then run/);
    expect(exitCode).toBe(6);
    expect(existsSync(tree.path('.setup'))).toBe(false);
  });
});
