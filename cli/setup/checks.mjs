/** The rules of the house, each held by a tool; `npm run check` runs them all and names every one that fails. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ChildFailure } from './child.mjs';
import { SetupFailure } from './failure.mjs';

/** @param {string} root @returns {readonly import('./runner.mjs').Step[]} */
export function checkSteps(root) {
  return [
    check('types', 'types (tsc)', ['typescript/bin/tsc', '--project', 'tsconfig.json', '--pretty', 'false']),
    check('setup-types', 'types of the set-up', [
      'typescript/bin/tsc',
      '--project',
      'cli/setup/tsconfig.json',
      '--pretty',
      'false',
    ]),
    check('eslint', 'rules (eslint)', ['eslint/bin/eslint.js', '.']),
    check('format', 'format (prettier)', ['prettier/bin/prettier.cjs', '--check', '.']),
    check('layers', 'layers (dependency-cruiser)', [
      'dependency-cruiser/bin/dependency-cruise.mjs',
      '--config',
      '.dependency-cruiser.cjs',
      '.',
    ]),
    check('dead', 'dead code (knip)', ['knip/bin/knip.js']),
    nativeFormat(root),
  ];
}

/** @param {string} id @param {string} title @param {readonly string[]} tool below node_modules, with its arguments */
function check(id, title, [tool = '', ...rest]) {
  return step(id, title, [process.execPath, join('node_modules', tool), ...rest]);
}

/** @param {string} root */
function nativeFormat(root) {
  const sources = nativeSources(root, 'native').concat(nativeSources(root, 'test/native'));
  // QEMU's own style holds for what QEMU includes.
  const ours = sources.filter((file) => file !== 'native/gaia-layout.h');
  return step('native-format', 'native format (clang-format)', [
    'clang-format',
    '--dry-run',
    '-Werror',
    ...ours,
  ]);
}

/** @param {string} root @param {string} folder @returns {string[]} */
function nativeSources(root, folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name.startsWith('build') ? [] : nativeSources(root, path);
    return /\.(cc|c|h)$/.test(entry.name) ? [path] : [];
  });
}

/** @param {string} id @param {string} title @param {readonly string[]} command @returns {import('./runner.mjs').Step} */
function step(id, title, command) {
  return {
    id: `check-${id}`,
    title,
    needs: [],
    async work({ run, logFile }) {
      try {
        await run(command, { onLine: () => undefined });
      } catch (error) {
        if (!(error instanceof ChildFailure)) throw error;
        throw new SetupFailure(`${title} found something`, 1, logFile);
      }
      return 'in order';
    },
  };
}
