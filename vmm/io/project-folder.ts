/** Where this gaia-vm was installed, and how an operator calls it from where they are. */
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { invariant } from '../core/invariant.ts';

/** The folder of package.json: this file runs from the source tree or from dist/ below it. */
export function projectFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    invariant(parent !== folder, 'a package.json lies above every file of gaia-vm');
    folder = parent;
  }
  return folder;
}

/** The words that call this very gaia-vm in a shell here, for remedies that can be pasted as they are. */
export function selfCommand(environment: NodeJS.ProcessEnv = process.env): string {
  const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');
  for (const folder of (environment['PATH'] ?? '').split(delimiter)) {
    const candidate = join(folder, 'gaia-vm');
    if (folder === '' || !existsSync(candidate) || !existsSync(entry)) continue;
    if (realpathSync(candidate) !== realpathSync(entry)) continue;
    // npx puts such folders on the path of what it runs, and only there.
    return /\/(node_modules|_npx)\//.test(`${folder}/`) ? 'npx gaia-vm' : 'gaia-vm';
  }
  const fromHere = relative(process.cwd(), entry);
  return `node ${fromHere.startsWith('..') ? entry : fromHere}`;
}

/** The version in package.json. */
export function gaiaVersion(): string {
  const text = readFileSync(join(projectFolder(), 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
