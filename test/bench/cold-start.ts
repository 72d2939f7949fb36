/**
 * From a fresh copy of the sources to a protected VM with nothing in any cache of gaia-vm: npm packages, addon,
 * patched QEMU and demo image are made anew. Only Debian's packages are those that this machine has. Guarantee: the
 * copy, its caches and the VM are gone afterwards.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { execa } from 'execa';
import { projectFolder } from '../../vmm/index.ts';
import type { NetworkNamespace } from '../framework/network-namespace.ts';

const vm = 'cold';
/** What a build makes, and what is no source. */
const leftOut = /^(node_modules|dist|coverage|\.git|\.setup.*|native\/build[^/]*|\.ci\/out)$/;
/** An interrupted set-up ends its compilers first. */
const endsWithinMs = 60_000;

/** Seconds. The set-up needs Debian's archive and npm's registry; the VM runs inside the namespace. */
export async function coldStartS(namespace: NetworkNamespace, signal: AbortSignal): Promise<number> {
  const base = await mkdtemp(join(tmpdir(), 'gaia-cold-'));
  const tree = join(base, 'tree');
  const run = async (
    command: string,
    words: readonly string[],
    cancelSignal?: AbortSignal,
  ): Promise<void> => {
    await execa(command, words, {
      cwd: tree,
      env: { GAIA_ROOT: join(base, 'root'), NO_COLOR: '1' },
      stdin: 'ignore',
      forceKillAfterDelay: endsWithinMs,
      ...(cancelSignal === undefined ? {} : { cancelSignal }),
    });
  };
  const gaiaVm = (...words: string[]): [string, string[]] =>
    namespace.inside(process.execPath, [join(tree, 'dist/cli/gaia-vm.js'), ...words]);
  try {
    await copySources(tree);
    const began = performance.now();
    await run(process.execPath, ['cli/setup.mjs', 'all'], signal);
    try {
      await run(...gaiaVm('start', '--name', vm, '--replicas', '3'), signal);
      return (performance.now() - began) / 1000;
    } finally {
      // A start that failed or was interrupted may have left nothing to stop.
      await run(...gaiaVm('stop', vm)).catch(() => undefined);
    }
  } finally {
    await rm(base, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function copySources(to: string): Promise<void> {
  const from = projectFolder();
  await cp(from, to, { recursive: true, filter: (source) => !leftOut.test(relative(from, source)) });
}
