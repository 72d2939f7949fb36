/** The step that installs the Debian packages which this machine lacks, and no others. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ChildFailure } from './child.mjs';
import { debianPackages } from './debian-packages.mjs';
import { SetupFailure } from './failure.mjs';

const listsAgeMaxMs = 24 * 3600 * 1000;
const environment = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'a' };

/** @returns {string[]} the names of the packages that are not installed */
export function missingPackages() {
  if (!onPath('dpkg-query') || !onPath('apt-get'))
    throw new SetupFailure(
      'This machine has no apt-get: run gaia-vm on Debian 12, or install the packages of cli/setup/debian-packages.mjs by hand on a system that is made like it',
      6,
    );
  const names = debianPackages.map(({ name }) => name);
  const query = spawnSync(
    'dpkg-query',
    ['--show', '--showformat=${db:Status-Abbrev} ${Package}\n', ...names],
    {
      encoding: 'utf8',
    },
  );
  const installed = new Set(
    query.stdout
      .split('\n')
      .filter((line) => line.startsWith('ii'))
      .map((line) => line.split(' ').at(-1)),
  );
  return names.filter((name) => !installed.has(name));
}

/**
 * Makes sure that installing will be allowed, before anything else is drawn on the terminal: sudo may ask
 * for a password. Throws with the exact command for somebody who is allowed to.
 * @param {readonly string[]} missing
 */
export function requirePermission(missing) {
  if (missing.length === 0 || isRoot()) return;
  const interactive = process.stdin.isTTY === true && process.stderr.isTTY === true;
  const allowed =
    onPath('sudo') &&
    spawnSync('sudo', interactive ? ['--validate'] : ['--non-interactive', 'true'], {
      stdio: interactive ? 'inherit' : 'ignore',
    }).status === 0;
  if (!allowed)
    throw new SetupFailure(
      `These Debian packages are missing and this user may not install them: run "apt-get install --no-install-recommends ${missing.join(' ')}" as root, then the same command again`,
      6,
    );
}

/** @type {import('./runner.mjs').Step} */
export const debianStep = {
  id: 'debian',
  title: 'Debian packages',
  needs: [],
  outlives: true,
  settled: () => missingPackages().length === 0,
  async work(tools) {
    const missing = missingPackages();
    if (missing.length === 0) return 'all are there';
    requirePermission(missing);
    if (dpkgWasInterrupted()) {
      tools.report('finishing an interrupted installation');
      await tools.run(withPrivilege(['dpkg', '--configure', '-a']), { environment });
    }
    const options = ['-o', 'DPkg::Lock::Timeout=600', '-o', 'Dpkg::Use-Pty=0', '-o', 'APT::Color=0'];
    const install = [
      'apt-get',
      'install',
      '--yes',
      '--quiet',
      '--no-install-recommends',
      ...options,
      ...missing,
    ];
    const update = async () => {
      tools.report('reading the package lists');
      await tools.run(withPrivilege(['apt-get', 'update', '--quiet', ...options]), { environment });
    };
    try {
      const old = listsAreOld();
      // One unreachable third-party entry fails the update of all; what is needed may be known all the same.
      if (old) await update().catch(onlyChildFailure);
      tools.report(`installing ${missing.length} packages`);
      await tools.run(withPrivilege(install), { environment }).catch(async (error) => {
        // A list of yesterday may name a version that a security update has replaced today.
        if (old) throw error;
        onlyChildFailure(error);
        await update().catch(onlyChildFailure);
        await tools.run(withPrivilege(install), { environment });
      });
    } catch (error) {
      throw error instanceof ChildFailure ? explain(error, missing, tools.logFile) : error;
    }
    const still = missingPackages();
    if (still.length > 0)
      throw new SetupFailure(
        `apt-get reported success and ${still.join(', ')} ${still.length === 1 ? 'is' : 'are'} still missing: see ${tools.logFile}`,
        6,
        tools.logFile,
      );
    return `installed ${missing.length}`;
  },
};

/** @param {ChildFailure} error @param {readonly string[]} missing @param {string} logFile */
function explain(error, missing, logFile) {
  const text = error.tail.join('\n');
  const complaint = (error.tail.find((line) => line.startsWith('E: ')) ?? error.message).replace(/^E: /, '');
  let advice = `run "apt-get update && apt-get install --no-install-recommends ${missing.join(' ')}" and mend what it complains about, then run the same command again`;
  if (/could not resolve|could not connect|temporary failure|unreachable|timed out/i.test(text))
    advice = 'check the network, then run the same command again';
  if (/no space left|enough free space/i.test(text))
    advice = 'free some space on the disk, then run the same command again';
  return new SetupFailure(`Debian packages could not be installed (${complaint}): ${advice}`, 6, logFile);
}

/** @param {unknown} error */
function onlyChildFailure(error) {
  if (!(error instanceof ChildFailure)) throw error;
}

/** @param {readonly string[]} command */
function withPrivilege(command) {
  // sudo forgets the environment, and apt-get must not ask questions.
  if (isRoot()) return command;
  return [
    'sudo',
    '--non-interactive',
    'env',
    ...Object.entries(environment).map(([key, value]) => `${key}=${value}`),
    ...command,
  ];
}

export function isRoot() {
  return process.getuid?.() === 0;
}

function dpkgWasInterrupted() {
  const updates = '/var/lib/dpkg/updates';
  try {
    if (readdirSync(updates).length > 0) return true;
    return execFileSync('dpkg', ['--audit'], { encoding: 'utf8' }).trim() !== '';
  } catch {
    return false;
  }
}

function listsAreOld() {
  const folder = '/var/lib/apt/lists';
  try {
    const times = readdirSync(folder)
      .filter((name) => /_(In)?Release$/.test(name))
      .map((name) => statSync(join(folder, name)).mtimeMs);
    const packages = readdirSync(folder).some((name) => /_Packages/.test(name));
    // APT keeps the archive's own date on the files; the folders change when it has asked.
    const asked = Math.max(statSync(folder).mtimeMs, statSync(join(folder, 'partial')).mtimeMs, ...times);
    return !packages || Date.now() - asked > listsAgeMaxMs;
  } catch {
    return true;
  }
}

/** @param {string} program */
function onPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, program)));
}
