/** A disk that is slow, or fails at a chosen call, for a child process: faulty-disk.c, preloaded. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

export interface DiskFaults {
  /** A file that says, and may say otherwise at any time, which folders are slow: see faulty-disk.c. */
  readonly slowFolders?: string;
  /** Every fdatasync takes so many microseconds more. */
  readonly fdatasyncUs?: number;
  /** This one, counted from 1, fails with EIO. */
  readonly fdatasyncFails?: number;
  /** This one, counted from 1, fails with ENOSPC. */
  readonly pwriteFails?: number;
  /** No pwrite takes more bytes at once. */
  readonly pwriteShort?: number;
  /** Every pread begins so many microseconds late. */
  readonly preadUs?: number;
  /** This one, counted from 1, fails with EIO. */
  readonly preadFails?: number;
}

/** The environment in which files below `folder` lie on such a disk; the library is built into `buildFolder`. */
export function faultyDisk(buildFolder: string, folder: string, faults: DiskFaults): NodeJS.ProcessEnv {
  const library = join(buildFolder, 'faulty-disk.so');
  const source = join(import.meta.dirname, 'faulty-disk.c');
  const flags = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror'];
  execFileSync('gcc', [...flags, '-o', library, source, '-ldl'], { env: { ...process.env, LD_PRELOAD: '' } });
  return {
    ...process.env,
    LD_PRELOAD: [process.env['LD_PRELOAD'], library]
      .filter((part) => part !== undefined && part !== '')
      .join(' '),
    GAIA_FAULTY_FOLDER: folder,
    GAIA_SLOW_FOLDERS: faults.slowFolders ?? '',
    GAIA_FDATASYNC_US: String(faults.fdatasyncUs ?? 0),
    GAIA_FDATASYNC_FAILS: String(faults.fdatasyncFails ?? 0),
    GAIA_PWRITE_FAILS: String(faults.pwriteFails ?? 0),
    GAIA_PWRITE_SHORT: String(faults.pwriteShort ?? 0),
    GAIA_PREAD_US: String(faults.preadUs ?? 0),
    GAIA_PREAD_FAILS: String(faults.preadFails ?? 0),
  };
}
