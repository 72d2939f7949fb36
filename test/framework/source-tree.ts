/**
 * A copy of this source tree to try things in, with a cache folder of its own beside it. Everything that a
 * test starts through it is ended, and everything it made is removed, when the test is over.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  watch,
  type FSWatcher,
} from 'node:fs';
import { spawn, type ChildProcess } from 'node:child_process';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { folders } from '../../vmm/io/folders.ts';

export const repository = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** What a build makes, and what is not part of the sources. */
const leftOut = /^(node_modules|dist|coverage|\.git|\.setup.*|native\/build[^/]*|\.ci\/out)$/;

export interface Ended {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class SourceTree {
  readonly folder: string;
  /** GAIA_ROOT of everything that runs in the tree. */
  readonly root: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly #base: string;
  readonly #children = new Set<ChildProcess>();

  private constructor(base: string) {
    this.#base = base;
    this.folder = join(base, 'tree');
    this.root = join(base, 'root');
    this.environment = { ...process.env, GAIA_ROOT: this.root, NO_COLOR: '1' };
  }

  /** Copies `parts` of the sources, all of them unless named; npm packages are those of this tree. */
  static create(parts: readonly string[] = ['.']): SourceTree {
    const tree = new SourceTree(mkdtempSync(join(tmpdir(), 'gaia-tree-')));
    mkdirSync(tree.folder);
    for (const part of parts)
      cpSync(join(repository, part), join(tree.folder, part), {
        recursive: true,
        filter: (source) => !leftOut.test(relative(repository, source)),
      });
    tree.#linkPackages();
    mkdirSync(join(tree.root, 'cache'), { recursive: true });
    return tree;
  }

  /** Package by package: "npm ci" empties the folder it finds, and must not reach this tree's through a link. */
  #linkPackages(): void {
    const packages = join(repository, 'node_modules');
    mkdirSync(join(this.folder, 'node_modules'));
    for (const entry of readdirSync(packages))
      symlinkSync(join(packages, entry), join(this.folder, 'node_modules', entry));
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  cache(...parts: string[]): string {
    return join(this.root, 'cache', ...parts);
  }

  /** Saves a download: the source of QEMU that this machine's cache holds already, if it does. */
  takeQemuSource(): void {
    for (const part of ['qemu/source', 'qemu/apt/lists']) {
      const cached = join(folders().cache, part);
      if (existsSync(cached)) cpSync(cached, this.cache(part), { recursive: true });
    }
  }

  start(program: string, words: readonly string[], environment: NodeJS.ProcessEnv = {}): RunningProgram {
    const child = spawn(program, words, {
      cwd: this.folder,
      env: { ...this.environment, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    return new RunningProgram(child);
  }

  /** `node cli/setup.mjs …` in this tree. */
  setup(words: readonly string[], environment: NodeJS.ProcessEnv = {}): RunningProgram {
    return this.start(process.execPath, ['cli/setup.mjs', ...words], environment);
  }

  remove(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    endProcessesBelow(this.#base);
    rmSync(this.#base, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A failed test may leave more running in its folders than the children it knows. */
function endProcessesBelow(base: string): void {
  for (const pid of readdirSync('/proc').map(Number)) {
    try {
      if (readlinkSync(`/proc/${pid}/cwd`).startsWith(`${base}/`)) process.kill(pid, 'SIGKILL');
    } catch {
      // Gone by itself, or no process at all.
    }
  }
}

/** The deepest folder above `path` that exists. */
function deepestFolder(path: string): string {
  let folder = dirname(path);
  while (!existsSync(folder)) folder = dirname(folder);
  return folder;
}

/** A watch of `folder`, or nothing where it has just been removed. */
function watched(folder: string, changed: () => void): FSWatcher | undefined {
  try {
    return watch(folder, changed);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export class RunningProgram {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #stderr = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    let stdout = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      for (const check of this.#waiting) check();
    });
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (exitCode) => resolve({ exitCode, stdout, stderr: this.#stderr }));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** As a crash would end it: no handler of its own runs. */
  async kill(): Promise<Ended> {
    this.#child.kill('SIGKILL');
    return await this.ended;
  }

  async interrupt(): Promise<Ended> {
    this.#child.kill('SIGINT');
    return await this.ended;
  }

  /** Resolves when stderr holds `text`; rejects when the program ends before that. */
  async prints(text: string): Promise<void> {
    await this.#before(`printed "${text}"`, (done) => {
      const check = (): void => {
        if (this.#stderr.includes(text)) done();
      };
      this.#waiting.add(check);
      check();
      return () => this.#waiting.delete(check);
    });
  }

  /** Resolves when `path` exists; rejects when the program ends before that. */
  async makes(path: string): Promise<void> {
    await this.#before(`made ${path}`, (done) => {
      let stop = (): void => undefined;
      // Watches the deepest folder that exists, and goes down with the program.
      const look = (): void => {
        stop();
        if (existsSync(path)) {
          done();
          return;
        }
        const folder = deepestFolder(path);
        const watcher = watched(folder, look);
        if (watcher === undefined) {
          look();
          return;
        }
        // A folder that is removed while it is watched: begin further up.
        watcher.on('error', look);
        stop = () => watcher.close();
        // It, or a folder on the way to it, may have come between the look and the watch.
        if (existsSync(path)) done();
        else if (deepestFolder(path) !== folder) look();
      };
      look();
      return () => stop();
    });
  }

  async #before(what: string, wait: (done: () => void) => () => void): Promise<void> {
    let cleanUp = (): unknown => undefined;
    try {
      await Promise.race([
        new Promise<void>((resolve) => {
          cleanUp = wait(resolve);
        }),
        this.ended.then(({ exitCode, stderr }) => {
          throw new Error(`It ended with exit code ${exitCode ?? 'none'} before it had ${what}:\n${stderr}`);
        }),
      ]);
    } finally {
      cleanUp();
    }
  }
}
