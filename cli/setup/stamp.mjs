/**
 * Remembers which inputs a step was last done for. The stamp goes before the step begins and comes back only
 * after it succeeded, and a mark tells a step that was interrupted from one that never ran.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { parseProcess } from './process-list.mjs';

/**
 * The hash of files: names and contents of all below `paths` that `wanted` accepts.
 * @param {string} root
 * @param {readonly string[]} paths files or folders, relative to `root`; what does not exist is left out
 * @param {(path: string) => boolean} [wanted]
 * @param {readonly string[]} [words] what else the step depends on
 */
export function hashInputs(root, paths, wanted = () => true, words = []) {
  const hash = createHash('sha256');
  for (const word of words) hash.update(`${word}\0`);
  for (const path of paths.flatMap((name) => filesBelow(root, name)).sort()) {
    if (!wanted(path)) continue;
    const content = readFileSync(join(root, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

/** @param {string} root @param {string} path @returns {string[]} */
function filesBelow(root, path) {
  const full = join(root, path);
  if (!existsSync(full)) return [];
  if (!statSync(full).isDirectory()) return [path];
  return readdirSync(full, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) return filesBelow(root, join(path, entry.name));
    return entry.isFile() ? [join(path, entry.name)] : [];
  });
}

export class Stamps {
  /** @param {string} folder */
  constructor(folder) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  /** @param {string} step @param {string} hash */
  isFresh(step, hash) {
    const file = join(this.folder, `${step}.done`);
    return existsSync(file) && readFileSync(file, 'utf8').trim() === hash;
  }

  /** Whether the step began and never came to an end. @param {string} step */
  wasInterrupted(step) {
    return existsSync(this.sessionFile(step));
  }

  /** Where the programs of a step note themselves, each the leader of a session. @param {string} step */
  sessionFile(step) {
    return join(this.folder, `${step}.begun`);
  }

  /** The sessions that an interrupted step had started. @param {string} step */
  leftoverSessions(step) {
    return readFileSync(this.sessionFile(step), 'utf8')
      .split('\n')
      .map(parseProcess)
      .filter((leader) => leader !== undefined);
  }

  /** @param {string} step */
  begin(step) {
    rmSync(join(this.folder, `${step}.done`), { force: true });
    writeFileSync(this.sessionFile(step), '');
  }

  /** @param {string} step @param {string | undefined} hash undefined for steps that look for themselves */
  finish(step, hash) {
    if (hash !== undefined) {
      const draft = join(this.folder, `${step}.draft`);
      writeFileSync(draft, `${hash}\n`);
      renameSync(draft, join(this.folder, `${step}.done`));
    }
    rmSync(this.sessionFile(step), { force: true });
  }
}
