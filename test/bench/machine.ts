/** On what and with what a bench ran, as far as it bears on its figures. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { gaiaVersion, projectFolder, requireQemu } from '../../vmm/index.ts';

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryMib: number;
  readonly kernel: string;
  readonly system: string;
  /** Runnable processes over the minute before the bench: above 0.5 others were at work. */
  readonly loadBefore: number;
}

export function describeMachine(): Machine {
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    system: /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'unknown',
    loadBefore: loadavg()[0] ?? 0,
  };
}

/** Throws BrokenEnvironmentError when the patched QEMU is not there. */
export async function describeVersions(): Promise<Record<string, string>> {
  const qemu = await requireQemu();
  return {
    gaiaVm: gaiaVersion(),
    node: process.versions.node,
    qemu: `Debian ${qemu.sourceVersion}, build ${qemu.buildId}`,
  };
}

/** The commit checked out, marked when files differ from it; null outside of a git tree. */
export function currentCommit(): string | null {
  const git = (...words: string[]): string =>
    execFileSync('git', words, {
      cwd: projectFolder(),
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  try {
    const changed = git('status', '--porcelain') !== '';
    return `${git('rev-parse', '--short=12', 'HEAD').trim()}${changed ? ' with changes' : ''}`;
  } catch {
    return null;
  }
}
