/** The steps that make a clone ready, and what each of them depends on. */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ChildFailure } from './child.mjs';
import { debianStep, isRoot } from './debian.mjs';
import { SetupFailure } from './failure.mjs';
import { hashInputs } from './stamp.mjs';

/** The image that `start` runs and most tests use. */
const demoImage = 'memcached';

/** npm waits anew for each of some hundred packages: without a network it would say so only after minutes. */
const patience = ['--fetch-retries=2', '--fetch-retry-mintimeout=200', '--fetch-retry-factor=5'];

/** @type {import('./runner.mjs').Step} */
const npmStep = {
  id: 'npm',
  title: 'npm packages',
  needs: [],
  inputs: (root) =>
    hashInputs(root, ['package.json', 'package-lock.json', '.npmrc'], undefined, [process.version]),
  present: (root) => existsSync(join(root, 'node_modules')),
  adopt: lockFileIsInstalled,
  async work({ run, report, logFile }) {
    report('installing what package-lock.json names');
    try {
      // Nothing of a half-made node_modules is kept: npm ci begins by removing it.
      await run(['npm', 'ci', '--include=dev', '--no-audit', '--no-fund', ...patience]);
    } catch (error) {
      if (!(error instanceof ChildFailure)) throw error;
      const reason = npmComplaint(readFileSync(logFile, 'utf8')) ?? error.message;
      throw new SetupFailure(
        `npm packages could not be installed (${reason}): check the network and the disk, then run the same command again`,
        1,
        logFile,
      );
    }
    return 'installed';
  },
};

/** The first thing npm says went wrong: codes come before it, usage after it. @param {string} log */
function npmComplaint(log) {
  return log
    .split('\n')
    .filter((line) => /^npm (ERR!|error) \S/.test(line))
    .map((line) => line.replace(/^npm (ERR!|error) /, ''))
    .find((line) => !/^(code|errno|syscall|path) /.test(line));
}

/**
 * Whether node_modules holds what the lock file names: npm keeps a list of what it installed, written at
 * the end. Saves those who ran npm themselves from a second installation.
 * @param {string} root
 */
function lockFileIsInstalled(root) {
  const file = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(file)) return false;
  const wanted = readPackages(join(root, 'package-lock.json'));
  const installed = readPackages(file);
  return (
    Object.entries(wanted).every(
      ([path, item]) => path === '' || item.optional === true || installed[path]?.version === item.version,
    ) && Object.entries(installed).every(([path, item]) => wanted[path]?.version === item.version)
  );
}

/** @param {string} file @returns {Record<string, { version?: string; optional?: boolean }>} */
function readPackages(file) {
  return JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
}

/** @type {import('./runner.mjs').Step} */
const buildStep = {
  id: 'build',
  title: 'TypeScript',
  needs: ['npm'],
  inputs: (root) =>
    hashInputs(
      root,
      [
        'vmm',
        'native',
        'merkle',
        'cli',
        'images',
        'test',
        'tsconfig.json',
        'tsconfig.build.json',
        'package-lock.json',
      ],
      (path) => /\.(ts|json)$/.test(path) && !/\.test\.ts$|^native\/build/.test(path),
    ),
  present: (root) => existsSync(join(root, 'dist/cli/gaia-vm.js')),
  async work({ root, run, report, logFile }) {
    report('compiling');
    // Beside the place, and moved there whole: dist/ is never half of the old and half of the new.
    const draft = join(root, '.setup-dist');
    const old = join(root, '.setup-dist-old');
    for (const folder of [draft, old]) rmSync(folder, { recursive: true, force: true });
    mkdirSync(draft);
    writeFileSync(join(draft, '.gitignore'), '*\n');
    const compiler = [
      'node_modules/typescript/bin/tsc',
      '--project',
      'tsconfig.build.json',
      '--pretty',
      'false',
    ];
    try {
      await run([
        process.execPath,
        ...compiler,
        '--outDir',
        draft,
        '--incremental',
        'false',
        '--tsBuildInfoFile',
        'null',
      ]);
    } catch (error) {
      if (!(error instanceof ChildFailure)) throw error;
      rmSync(draft, { recursive: true, force: true });
      const reason = error.tail.find((line) => /error TS/.test(line)) ?? error.message;
      throw new SetupFailure(
        `The sources do not compile (${reason}): mend them, then run the same command again`,
        1,
        logFile,
      );
    }
    const dist = join(root, 'dist');
    if (existsSync(dist)) renameSync(dist, old);
    renameSync(draft, dist);
    rmSync(old, { recursive: true, force: true });
    return 'compiled';
  },
};

/** @type {import('./runner.mjs').Step} */
const addonStep = {
  id: 'addon',
  title: 'native addon',
  needs: ['debian', 'npm'],
  inputs: (root) =>
    hashInputs(root, ['native', 'package-lock.json'], (path) => !/^native\/build|\.ts$/.test(path), [
      process.arch,
    ]),
  present: (root) => existsSync(join(root, 'native/build/Release/gaia_native.node')),
  async work({ root, interrupted, run, report, logFile }) {
    const folder = join(root, 'native/build');
    // What a killed compiler or linker left may look finished, and CMake refuses another generator's folder.
    if (interrupted || !isNinjaFolder(folder)) rmSync(folder, { recursive: true, force: true });
    report('compiling');
    const tool = 'node_modules/cmake-js/bin/cmake-js';
    try {
      await run([process.execPath, tool, 'compile', '--directory', 'native', '--out', 'native/build']);
    } catch (error) {
      if (!(error instanceof ChildFailure)) throw error;
      const reason = error.tail.find((line) => /\berror\b/i.test(line)) ?? error.message;
      throw new SetupFailure(
        `The native addon does not build (${reason.trim()}): see ${logFile}, mend it, then run the same command again`,
        1,
        logFile,
      );
    }
    return 'built';
  },
};

/** Whether the folder was configured for the generator that cmake-js chooses. @param {string} folder */
function isNinjaFolder(folder) {
  const cache = join(folder, 'CMakeCache.txt');
  return existsSync(cache) && /^CMAKE_GENERATOR:INTERNAL=Ninja$/m.test(readFileSync(cache, 'utf8'));
}

/**
 * A step that one of our own commands does. It looks itself whether there is work, and its last line on
 * stderr says what went wrong.
 * @param {string} id @param {string} title
 * @param {string} progressTitle what the command's own lines of progress begin with
 * @param {readonly string[]} words
 * @returns {import('./runner.mjs').Step}
 */
function commandStep(id, title, progressTitle, words) {
  return {
    id,
    title,
    needs: ['debian', 'build', 'folder'],
    async work({ run, report, logFile }) {
      report('looking what is there');
      const prefix = `${progressTitle}: `;
      let worked = false;
      /** @type {(line: string) => void} */
      const onLine = (line) => {
        worked ||= line.startsWith(prefix);
        report(line.replace(prefix, ''));
      };
      try {
        await run([process.execPath, 'dist/cli/gaia-vm.js', ...words], { onLine });
      } catch (error) {
        if (!(error instanceof ChildFailure)) throw error;
        const said = error.tail.findLast((line) => line.startsWith('gaia-vm: '));
        if (said === undefined) throw error;
        throw new SetupFailure(said.slice('gaia-vm: '.length), error.exitCode ?? 1, logFile);
      }
      return worked ? 'built' : 'up to date';
    },
  };
}

/** @type {import('./runner.mjs').Step} */
const folderStep = {
  id: 'folder',
  title: 'cache folder',
  needs: ['debian'],
  inputs: () => cacheFolder(),
  present: () => isRoot() || isWritable(cacheFolder()),
  async work({ run }) {
    const folder = cacheFolder();
    if (isRoot() || (process.env.GAIA_ROOT ?? '') !== '') {
      mkdirSync(folder, { recursive: true });
      return 'made';
    }
    // Only what can be built again lies there, so a user who may use sudo may own it.
    const owner = ['--owner', `${process.getuid?.()}`, '--group', `${process.getgid?.()}`];
    await run(['sudo', '--non-interactive', 'install', '--directory', ...owner, folder]);
    return `made, owned by this user`;
  },
};

function cacheFolder() {
  const root = process.env.GAIA_ROOT ?? '';
  return root === '' ? '/var/cache/gaia-vm' : join(root, 'cache');
}

/** @param {string} folder */
function isWritable(folder) {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** In an order in which each comes after what it needs. @type {readonly import('./runner.mjs').Step[]} */
const setupSteps = [
  debianStep,
  npmStep,
  folderStep,
  buildStep,
  addonStep,
  commandStep('qemu', 'patched QEMU', 'patched QEMU', ['qemu', 'build']),
  commandStep('image', 'demo image', `image ${demoImage}`, ['image', 'build', demoImage]),
];

/** The steps with these ids and all that they need. @param {readonly string[]} ids */
export function stepsFor(ids) {
  const wanted = new Set(ids);
  for (const step of [...setupSteps].reverse())
    if (wanted.has(step.id)) step.needs.forEach((id) => wanted.add(id));
  return setupSteps.filter(({ id }) => wanted.has(id));
}
