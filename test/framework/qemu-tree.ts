/**
 * QEMU's source in a folder of its own, to which the series is applied patch by patch: what is built here is never
 * installed. Guarantee: `remove` leaves nothing of it.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { folders } from '../../vmm/io/folders.ts';
import { projectFolder } from '../../vmm/io/project-folder.ts';
import { configureFlags, readRecipe, type QemuRecipe } from '../../vmm/io/qemu/recipe.ts';
import { fetchSource } from '../../vmm/io/qemu/source.ts';

const program = 'qemu-system-x86_64';

/** Of the package ipxe-qemu: network cards other than ours want them. */
const networkRoms = '/usr/lib/ipxe/qemu';

/** Undefined where this machine has what QEMU's own tests need beyond what a build needs. */
export function whyNoQtests(): string | undefined {
  return existsSync(networkRoms) ? undefined : 'the package ipxe-qemu is not installed';
}

/**
 * The machine as QEMU's own tests expect it: every device of the architecture, and slirp where its library is there.
 * Firmware comes from the packages, as in the build that is installed.
 */
async function testFlags(): Promise<string[]> {
  const slirp = await execa('pkg-config', ['--exists', 'slirp'], { reject: false });
  const left = ['--without-default-devices', '--with-devices-x86_64=gaia'];
  const flags = configureFlags
    .map(({ flag }) => (flag.startsWith('--firmwarepath=') ? `${flag}:${networkRoms}` : flag))
    .filter((flag) => !left.includes(flag));
  return slirp.exitCode === 0 ? [...flags, '--enable-slirp'] : flags;
}

/**
 * QEMU's tests take KVM wherever it opens. One without hardware virtualization runs no ordinary guest: there they find
 * nothing behind /dev/kvm, and take TCG.
 */
function withoutHollowKvm(): string[] {
  const hardware = /^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
  if (hardware || !existsSync('/dev/kvm')) return [];
  return ['unshare', '--mount', 'sh', '-c', 'mount --bind /dev/null /dev/kvm && exec "$@"', 'qtest'];
}

export interface QtestResult {
  readonly name: string;
  readonly passed: number;
  readonly skipped: number;
  /** Names of the cases that failed; of a program that ended otherwise, how. */
  readonly failed: readonly string[];
}

export class QemuTree {
  readonly recipe: QemuRecipe;
  readonly #folder: string;
  readonly #source: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#source = join(folder, 'source');
    this.recipe = readRecipe(projectFolder());
  }

  /** Debian's source as it is. */
  static async unpack(): Promise<QemuTree> {
    const tree = new QemuTree(mkdtempSync(join(tmpdir(), 'gaia-series-')));
    const cacheFolder = folders().cache;
    const source = await fetchSource({
      cacheFolder,
      upstream: tree.recipe.upstream,
      signal: undefined,
      onProgress: () => undefined,
    });
    const dsc = join(source.folder, source.dscFile);
    await execa('dpkg-source', ['--no-copy', '--extract', dsc, tree.#source], { cwd: tree.#folder });
    return tree;
  }

  // The series ---------------------------------------------------------------------------------------

  /** What `patch` says of applying it: nothing but the names of files, where it lies exactly. */
  async apply(patch: string): Promise<string[]> {
    const words = ['--strip=1', '--fuzz=0', '--forward', '--batch', '--no-backup-if-mismatch'];
    const { stdout } = await execa('patch', [...words, `--input=${patch}`], { cwd: this.#source });
    return stdout.split('\n').filter((line) => !line.startsWith('patching file '));
  }

  /** What QEMU's checkpatch has to say, without its verdict. */
  async complaints(patch: string): Promise<string[]> {
    const script = join(this.#source, 'scripts/checkpatch.pl');
    const words = ['--no-signoff', '--no-tree', '--terse', '--no-summary', patch];
    const { stdout } = await execa('perl', [script, ...words], { reject: false });
    return stdout
      .split('\n')
      .filter((line) => line !== '' && !line.includes('has no obvious style problems'));
  }

  /** What the build copies beside the patches: the shared header and the list of devices. */
  addOurFiles(): void {
    const project = projectFolder();
    mkdirSync(join(this.#source, 'include/hw/gaia'), { recursive: true });
    copyFileSync(join(project, 'native/gaia-layout.h'), join(this.#source, 'include/hw/gaia/gaia-layout.h'));
    copyFileSync(
      join(project, 'qemu-patches/gaia.mak'),
      join(this.#source, 'configs/devices/x86_64-softmmu/gaia.mak'),
    );
  }

  // Builds -------------------------------------------------------------------------------------------

  /** Compiles and links QEMU as it is installed, and lets it say its version. */
  async buildAsInstalled(): Promise<string> {
    const file = await this.#build('installed', () => Promise.resolve(this.recipe.flags), [program]);
    return (await execa(file, ['--version'])).stdout;
  }

  /** QEMU as its own tests expect it, and those tests; returns the program's path outside of the build. */
  async buildForTests(name: string): Promise<string> {
    const tests = await this.#qtestTargets();
    const file = await this.#build('tests', testFlags, [program, ...tests]);
    // In its build folder QEMU looks for firmware there, where Debian's source has none. The tests take the architecture
    // from the name's end.
    const copy = join(this.#folder, `${name}-${program}`);
    copyFileSync(file, copy);
    return copy;
  }

  async #qtestTargets(): Promise<string[]> {
    await this.#configure('tests', testFlags);
    const { stdout } = await execa('ninja', ['-t', 'targets', 'all'], { cwd: join(this.#folder, 'tests') });
    return stdout.split('\n').flatMap((line) => /^(tests\/qtest\/[a-z0-9_-]+): /.exec(line)?.[1] ?? []);
  }

  async #configure(name: string, flags: () => Promise<readonly string[]>): Promise<string> {
    const folder = join(this.#folder, name);
    if (existsSync(join(folder, 'build.ninja'))) return folder;
    mkdirSync(folder, { recursive: true });
    await execa(join(this.#source, 'configure'), await flags(), { cwd: folder });
    return folder;
  }

  async #build(name: string, flags: () => Promise<readonly string[]>, targets: string[]): Promise<string> {
    const folder = await this.#configure(name, flags);
    await execa('ninja', [`-j${availableParallelism()}`, ...targets], { cwd: folder });
    return join(folder, program);
  }

  // QEMU's own tests ---------------------------------------------------------------------------------

  /** The tests that this configuration has built. */
  get qtests(): string[] {
    const folder = join(this.#folder, 'tests/tests/qtest');
    return readdirSync(folder)
      .filter((name) => !name.includes('.') && existsSync(join(folder, `${name}.p`)))
      .sort();
  }

  /** Runs one of them on `qemu`, all its cases whatever fails. */
  async runQtest(name: string, qemu: string, limitMs: number): Promise<QtestResult> {
    const folder = join(this.#folder, 'tests');
    const [command = '', ...words] = [
      ...withoutHollowKvm(),
      join(folder, 'tests/qtest', name),
      ...['--tap', '-k'],
    ];
    const { stdout, exitCode, timedOut, signal } = await execa(command, words, {
      cwd: folder,
      env: { QTEST_QEMU_BINARY: qemu },
      reject: false,
      timeout: limitMs,
      killSignal: 'SIGKILL',
    });
    const lines = stdout.split('\n');
    const failed = lines.flatMap((line) => /^(?:not ok \d+|Bail out!) (?:- )?(.*)$/.exec(line)?.[1] ?? []);
    const ended = timedOut ? 'ran out of time' : `ended with ${signal ?? `exit code ${exitCode ?? -1}`}`;
    return {
      name,
      passed: lines.filter((line) => /^ok \d+ (?!.*# SKIP)/.test(line)).length,
      skipped: lines.filter((line) => /^ok \d+ .*# SKIP/.test(line)).length,
      failed: failed.length === 0 && exitCode !== 0 ? [`${basename(name)} ${ended}`] : failed,
    };
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
