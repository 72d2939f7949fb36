import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { describeOwnDisk, describeOwnKernel } from './own-image.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-own-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function file(name: string, contents: Buffer): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, contents);
  return path;
}

function bzImage(): Buffer {
  const kernel = Buffer.alloc(4096);
  kernel.write('HdrS', 0x202);
  return kernel;
}

describe('own kernels and disks', () => {
  it('a kernel with an initrd becomes an image with absolute paths and the wanted arguments', async () => {
    const kernel = await file('vmlinuz', bzImage());
    const initrd = await file('initrd', Buffer.from('cpio'));
    const image = await describeOwnKernel({ kernel, initrd, kernelArguments: ['root=/dev/vda'] });
    expect(image).toMatchObject({
      name: 'vmlinuz',
      kernel,
      initrd,
      disk: null,
      kernelArguments: ['root=/dev/vda'],
      readyMarker: null,
      memoryBytesMin: 256 << 20,
    });
  });

  it('a raw disk of whole pages becomes an image that boots from it', async () => {
    const disk = await file('disk.raw', Buffer.alloc(8192));
    expect(await describeOwnDisk({ disk, name: 'db', port: 5432 })).toMatchObject({
      name: 'db',
      kernel: null,
      initrd: null,
      disk,
      port: 5432,
    });
  });

  it.each<[string, Buffer, RegExp]>([
    [
      'qcow2',
      Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(4092)]),
      /qcow2.*qemu-img convert/,
    ],
    ['of part of a page', Buffer.alloc(5000), /5000 bytes.*truncate -s 8192/],
    ['empty', Buffer.alloc(0), /0 bytes.*truncate -s 4096/],
  ])('a disk that is %s is refused with the command that mends it', async (_what, contents, message) => {
    const disk = await file('disk', contents);
    await expect(describeOwnDisk({ disk })).rejects.toMatchObject({
      code: 'GAIA_IMAGE_BROKEN',
      message: expect.stringMatching(message) as string,
    });
  });

  it('a kernel that is none, an empty initrd and a missing file are refused', async () => {
    const kernel = await file('vmlinuz', bzImage());
    const empty = await file('empty', Buffer.alloc(0));
    await expect(describeOwnKernel({ kernel: empty })).rejects.toThrow(/no Linux kernel/);
    await expect(describeOwnKernel({ kernel, initrd: empty })).rejects.toThrow(/is empty/);
    await expect(describeOwnKernel({ kernel: join(folder, 'absent') })).rejects.toThrow(/cannot be read/);
    await expect(describeOwnKernel({ kernel: folder })).rejects.toThrow(/regular file/);
  });
});
