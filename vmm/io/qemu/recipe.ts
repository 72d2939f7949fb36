/**
 * What the patched QEMU is made of: everything here, together with the version of Debian's source, decides
 * the build id, and nothing else does.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { GaiaError } from '../../core/errors.ts';

/** Flags of QEMU's configure, each with its reason. */
export const configureFlags: readonly { readonly flag: string; readonly why: string }[] = [
  { flag: '--target-list=x86_64-softmmu', why: 'guests are x86-64 machines' },
  {
    flag: '--without-default-features',
    why: 'off unless named below: less to build, less for a guest to attack',
  },
  { flag: '--without-default-devices', why: 'devices are named one by one in gaia.mak' },
  { flag: '--with-devices-x86_64=gaia', why: 'the device list, qemu-patches/gaia.mak' },
  { flag: '--enable-kvm', why: 'full speed where the host has hardware virtualization' },
  { flag: '--enable-tcg', why: 'works where it has not, and counts instructions for lockstep' },
  { flag: '--enable-fdt=system', why: 'microvm needs it; Debian ships it, so the bundled copy is not built' },
  { flag: '--enable-seccomp', why: '-sandbox on: a guest that breaks out finds few system calls' },
  { flag: '--enable-linux-aio', why: 'disk writes that do not occupy threads' },
  { flag: '--disable-tools', why: 'qemu-img and the like come from Debian when a user wants them' },
  { flag: '--disable-docs', why: 'Debian ships the manual' },
  { flag: '--disable-guest-agent', why: 'runs in guests, not here' },
  { flag: '--disable-install-blobs', why: 'firmware comes from the packages seabios and qemu-system-data' },
  {
    flag: '--firmwarepath=/usr/share/qemu:/usr/share/seabios',
    why: 'where those packages put it; without this the BIOS is not found',
  },
];

export interface Upstream {
  /** Debian's source package. */
  readonly package: string;
  /** Every version that begins so and ends in a number is accepted; the highest number is the newest. */
  readonly versionPrefix: string;
}

export interface QemuRecipe {
  readonly upstream: Upstream;
  readonly flags: readonly string[];
  /** In the order of application. */
  readonly patches: readonly { readonly name: string; readonly file: string; readonly content: Buffer }[];
  readonly devices: Buffer;
  /** The memory layout shared with the agent (native/gaia-layout.h). */
  readonly layout: Buffer;
}

/** Reads the recipe that `project` (the folder of package.json) holds. */
export function readRecipe(project: string): QemuRecipe {
  const folder = join(project, 'qemu-patches');
  return {
    upstream: parseUpstream(readFileSync(join(folder, 'UPSTREAM'), 'utf8')),
    flags: configureFlags.map(({ flag }) => flag),
    patches: readSeries(folder).map((name) => {
      const file = join(folder, name);
      if (!existsSync(file))
        throw new GaiaError(
          'GAIA_QEMU_SERIES',
          `qemu-patches/series names ${name}, and there is no such file: restore it or take it off the series`,
        );
      return { name, file, content: readFileSync(file) };
    }),
    devices: readFileSync(join(folder, 'gaia.mak')),
    layout: readFileSync(join(project, 'native/gaia-layout.h')),
  };
}

function readSeries(folder: string): string[] {
  const file = join(folder, 'series');
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}

/** Throws unless the text names a package and a version that ends in `*`. */
export function parseUpstream(text: string): Upstream {
  const fields = new Map(
    text.split('\n').flatMap((line) => {
      const match = /^(\w+):\s*(\S+)\s*$/.exec(line);
      return match?.[1] === undefined || match[2] === undefined ? [] : [[match[1], match[2]] as const];
    }),
  );
  const name = fields.get('Source');
  const versions = fields.get('Versions');
  if (name === undefined || versions?.endsWith('*') !== true)
    throw new GaiaError(
      'GAIA_QEMU_UPSTREAM',
      'qemu-patches/UPSTREAM lacks "Source: NAME" or "Versions: PREFIX*": restore it from the repository',
    );
  return { package: name, versionPrefix: versions.slice(0, -1) };
}

/** Sixteen hexadecimal digits that change whenever anything changes that the binary is made from. */
export function buildId(recipe: QemuRecipe, sourceVersion: string): string {
  const hash = createHash('sha256');
  const add = (label: string, content: Buffer | string): void => {
    const bytes = Buffer.from(content);
    // The length keeps two fields from being taken for one another.
    hash.update(`${label}\0${bytes.length}\0`).update(bytes);
  };
  add('source', sourceVersion);
  for (const flag of recipe.flags) add('flag', flag);
  for (const patch of recipe.patches) {
    add('patch', patch.name);
    add('content', patch.content);
  }
  add('devices', recipe.devices);
  add('layout', recipe.layout);
  return hash.digest('hex').slice(0, 16);
}
