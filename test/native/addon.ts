/**
 * The addon under test. Guarantees that it is built from the sources as they are: an outdated build is brought
 * up to date first. GAIA_NATIVE_BUILD names another build, which is taken as it is.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readlinkSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { native, type NativeBinding } from '../../native/binding.ts';

export const repository = join(import.meta.dirname, '../..');

/** The environment without preloaded sanitizers: compilers and the like need none. */
export const plainEnvironment: NodeJS.ProcessEnv = { ...process.env, LD_PRELOAD: '' };

/** Configures `folder` once, with `settings` (such as GAIA_SANITIZE=ON), and builds what is out of date. */
export function buildAddon(folder: string, settings: readonly string[] = []): void {
  const options = { env: plainEnvironment, encoding: 'utf8', stdio: 'pipe' } as const;
  if (!existsSync(join(folder, 'CMakeCache.txt'))) {
    const defines = settings.map((setting) => `-D${setting}`);
    execFileSync('cmake', ['-S', join(repository, 'native'), '-B', folder, ...defines], options);
  }
  execFileSync('cmake', ['--build', folder], options);
}

/** Where the addon under test lies, built. */
export function addonFile(): string {
  const folder = process.env['GAIA_NATIVE_BUILD'];
  if (folder !== undefined) return join(folder, 'gaia_native.node');
  buildAddon(join(repository, 'native/build'));
  return join(repository, 'native/build/Release/gaia_native.node');
}

export function loadAddon(): NativeBinding {
  addonFile();
  return native();
}

/** What this process holds open: "3 -> /memfd:x" and so on. */
export function openFds(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} -> ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      // The descriptor of the listing itself is closed by now.
      return [];
    }
  });
}

/** How many mappings of memory with this memfd name the process has. */
export function mappingCount(name: string): number {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return lines.filter((line) => line.includes(`/memfd:${name} `)).length;
}

/** The Error that `call` throws, with the properties of a failed system call. */
export function failureOf(call: () => unknown): NodeJS.ErrnoException {
  try {
    call();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('The call should have failed');
}
