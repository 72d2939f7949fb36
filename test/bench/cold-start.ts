/**
 * From a fresh copy of the sources to a protected VM with nothing in any cache of gaia-vm: npm packages, addon,
 * patched QEMU and demo image are made anew. Only Debian's packages are those that this machine has.
 */
import { rmSync } from 'node:fs';
import type { NetworkNamespace } from '../framework/network-namespace.ts';
import { SourceTree, type RunningProgram } from '../framework/source-tree.ts';

const vm = 'cold';

/** Seconds. The set-up needs Debian's archive and npm's registry; the VM runs inside the namespace. */
export async function coldStartS(namespace: NetworkNamespace, signal: AbortSignal): Promise<number> {
  const tree = SourceTree.create();
  // The copy shares npm packages with this tree, which a fresh clone does not.
  rmSync(tree.path('node_modules'));
  const gaiaVm = (...words: string[]): RunningProgram => {
    const entry = tree.path('dist/cli/gaia-vm.js');
    return tree.start(...namespace.inside(process.execPath, [entry, ...words]));
  };
  try {
    const began = performance.now();
    await finished(tree.setup(['all']), signal);
    await finished(gaiaVm('start', '--name', vm, '--replicas', '3'), signal);
    const seconds = (performance.now() - began) / 1000;
    await finished(gaiaVm('stop', vm), signal);
    return seconds;
  } catch (error) {
    // Whatever came of the start: nothing of it stays.
    await gaiaVm('stop', vm).ended;
    throw error;
  } finally {
    tree.remove();
  }
}

/** Throws when the program fails; an interruption is passed on to it and waited for. */
async function finished(program: RunningProgram, signal: AbortSignal): Promise<void> {
  const interrupt = (): void => void program.interrupt();
  signal.addEventListener('abort', interrupt);
  try {
    signal.throwIfAborted();
    const { exitCode, stderr } = await program.ended;
    signal.throwIfAborted();
    if (exitCode !== 0) throw new Error(`Exit code ${exitCode ?? 'none'}: ${stderr.trim()}`);
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}
