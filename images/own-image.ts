/**
 * Describes what the user brings instead of an image of ours: a kernel with an initrd, or a raw disk.
 * Guarantee: what QEMU could not boot from, or what could not be kept equal page by page, is refused here,
 * with the reason, and not at the start of a VM.
 */

import { open } from 'node:fs/promises';
import { basename, resolve } from 'node:path';

import { ImageError } from './error.ts';
import type { Image } from './image.ts';

interface OwnGuest {
  readonly name?: string;
  /** 256 MiB unless given. */
  readonly memoryBytesMin?: number;
  /** A line of the serial console that says the guest serves. */
  readonly readyMarker?: string;
  readonly protocol?: string;
  readonly port?: number;
}

export interface OwnKernel extends OwnGuest {
  readonly kernel: string;
  readonly initrd?: string;
  readonly disk?: string;
  /** Words for the kernel command line, such as root=/dev/vda. */
  readonly kernelArguments?: readonly string[];
}

export interface OwnDisk extends OwnGuest {
  /** Raw, bootable by a BIOS. */
  readonly disk: string;
}

const memoryBytesMinDefault = 256 * (1 << 20);
/** Memory and disks are compared and shipped in pieces of this size. */
const pageBytes = 4096;
/** Where a Linux kernel of the usual x86 form has its signature. */
const bzImageSignatureOffset = 0x202;

/** Disk formats with a structure of their own, by their first bytes. */
const formats: readonly (readonly [string, string])[] = [
  ['QFI\xfb', 'qcow2'],
  ['KDMV', 'vmdk'],
  ['conectix', 'vpc'],
  ['vhdxfile', 'vhdx'],
];

/** Throws ImageError GAIA_IMAGE_BROKEN for files that are not what they should be. */
export async function describeOwnKernel(own: OwnKernel): Promise<Image> {
  const { head } = await readHead(own.kernel, 'kernel');
  const isBzImage = head.toString('latin1', bzImageSignatureOffset, bzImageSignatureOffset + 4) === 'HdrS';
  const isElf = head.toString('latin1', 0, 4) === '\x7fELF';
  if (!isBzImage && !isElf) {
    throw new ImageError(
      'GAIA_IMAGE_BROKEN',
      `${own.kernel} is no Linux kernel for x86-64: give a vmlinuz (bzImage) or vmlinux file`,
    );
  }
  if (own.initrd !== undefined && (await readHead(own.initrd, 'initrd')).bytes === 0) {
    throw new ImageError('GAIA_IMAGE_BROKEN', `${own.initrd} is empty: give the initrd of this kernel`);
  }
  if (own.disk !== undefined) await refuseUnusableDisk(own.disk);
  return describe(own, own.kernel);
}

/** Throws ImageError GAIA_IMAGE_BROKEN for a disk that is not raw or not of whole pages. */
export async function describeOwnDisk(own: OwnDisk): Promise<Image> {
  await refuseUnusableDisk(own.disk);
  return describe(own, own.disk);
}

function describe(own: OwnGuest & Partial<OwnKernel>, namedAfter: string): Image {
  return {
    schema: 1,
    name: own.name ?? basename(namedAfter),
    description: `Brought by the user: ${namedAfter}`,
    kernel: absolute(own.kernel),
    initrd: absolute(own.initrd),
    disk: absolute(own.disk),
    memoryBytesMin: own.memoryBytesMin ?? memoryBytesMinDefault,
    readyMarker: own.readyMarker ?? null,
    protocol: own.protocol ?? null,
    port: own.port ?? null,
    kernelArguments: own.kernelArguments ?? [],
    recipeHash: null,
    initrdSha256: null,
    packages: [],
  };
}

function absolute(path: string | undefined): string | null {
  return path === undefined ? null : resolve(path);
}

async function refuseUnusableDisk(disk: string): Promise<void> {
  const { head, bytes } = await readHead(disk, 'disk');
  const format = formats.find(([magic]) => head.toString('latin1', 0, magic.length) === magic)?.[1];
  if (format !== undefined) {
    throw new ImageError(
      'GAIA_IMAGE_BROKEN',
      `${disk} is a ${format} disk and must be raw: run "qemu-img convert -O raw ${disk} ${disk}.raw"`,
    );
  }
  if (bytes === 0 || bytes % pageBytes !== 0) {
    const wanted = Math.max(1, Math.ceil(bytes / pageBytes)) * pageBytes;
    throw new ImageError(
      'GAIA_IMAGE_BROKEN',
      `${disk} has ${bytes} bytes, which are no whole 4 KiB pages: run "truncate -s ${wanted} ${disk}"`,
    );
  }
}

async function readHead(
  path: string,
  what: string,
): Promise<{ readonly head: Buffer; readonly bytes: number }> {
  try {
    const file = await open(path, 'r');
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw new Error(`${path} is not a regular file`);
      const head = Buffer.alloc(1024);
      await file.read(head, 0, head.length, 0);
      return { head, bytes: stat.size };
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new ImageError(
      'GAIA_IMAGE_BROKEN',
      `The ${what} ${path} cannot be read: check the path, which must be that of a regular file`,
      { cause: error },
    );
  }
}
