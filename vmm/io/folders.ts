/**
 * Where gaia-vm keeps things. Every path it makes lies under one of these folders, so GAIA_ROOT (an absolute
 * path) moves all of them at once; tests and side-by-side installations use that.
 */
import { isAbsolute, join } from 'node:path';
import { GaiaError } from '../core/errors.ts';

export interface Folders {
  /** Sockets and pids, gone after a reboot: VM/REPLICA/{agent,port}.sock. */
  readonly run: string;
  /** What must survive a reboot: VM/REPLICA/{log,checkpoint,disk}. */
  readonly state: string;
  /** What can be made again: the patched QEMU, guest images, downloaded sources. */
  readonly cache: string;
}

/** The folders of this process's environment. Nothing is created. */
export function folders(environment: NodeJS.ProcessEnv = process.env): Folders {
  const root = environment['GAIA_ROOT'];
  if (root === undefined || root === '')
    return { run: '/run/gaia-vm', state: '/var/lib/gaia-vm', cache: '/var/cache/gaia-vm' };
  if (!isAbsolute(root))
    throw new GaiaError(
      'GAIA_ROOT_RELATIVE',
      `GAIA_ROOT is "${root}", which depends on the working folder: give an absolute path`,
    );
  return { run: join(root, 'run'), state: join(root, 'lib'), cache: join(root, 'cache') };
}
