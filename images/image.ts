/**
 * A guest image is a folder with image.json, a kernel and an initrd; image.json says all that is needed to
 * boot it and to know when it serves. Its file names are relative, so that a folder may be moved.
 */

import { readFile, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';

import { ImageError, systemErrorCode } from './error.ts';

interface ImagePackage {
  readonly name: string;
  readonly version: string;
  readonly sha256: string;
}

export interface Image {
  readonly schema: 1;
  readonly name: string;
  readonly description: string;
  /** Absolute paths here; relative in image.json. An image boots from its kernel or from its disk. */
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** A raw disk. */
  readonly disk: string | null;
  readonly memoryBytesMin: number;
  /** The serial console shows this line once the service answers; null when nobody knows. */
  readonly readyMarker: string | null;
  readonly protocol: string | null;
  readonly port: number | null;
  /** Words that this image needs on its kernel command line, beside those of the machine profile. */
  readonly kernelArguments: readonly string[];
  /** Null for kernels, initrds and disks that the user brings. */
  readonly recipeHash: string | null;
  readonly initrdSha256: string | null;
  readonly packages: readonly ImagePackage[];
}

export const imageFileName = 'image.json';

/** Reads image.json and makes its paths absolute. Throws ImageError when it or what it names is missing. */
export async function loadImage(file: string): Promise<Image> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    const missing = systemErrorCode(error) === 'ENOENT';
    throw new ImageError(
      missing ? 'GAIA_IMAGE_NOT_BUILT' : 'GAIA_IMAGE_BROKEN',
      missing ? `${file} does not exist: build the image first` : `${file} is damaged: build the image again`,
      { cause: error },
    );
  }
  if (!isImage(value)) {
    throw new ImageError('GAIA_IMAGE_BROKEN', `${file} is of another version: build the image again`);
  }
  const folder = dirname(resolve(file));
  const image = {
    ...value,
    kernel: absolute(folder, value.kernel),
    initrd: absolute(folder, value.initrd),
    disk: absolute(folder, value.disk),
  };
  for (const path of [image.kernel, image.initrd, image.disk]) {
    if (path !== null) await refuseMissing(path, file);
  }
  return image;
}

function absolute(folder: string, path: string | null): string | null {
  return path === null || isAbsolute(path) ? path : join(folder, path);
}

async function refuseMissing(path: string, imageFile: string): Promise<void> {
  try {
    await stat(path);
  } catch (error) {
    throw new ImageError(
      'GAIA_IMAGE_BROKEN',
      `${path}, which ${imageFile} names, is missing: build the image again`,
      { cause: error },
    );
  }
}

function isImage(value: unknown): value is Image {
  if (typeof value !== 'object' || value === null) return false;
  const fields = value as Record<string, unknown>;
  const textOrNull = ['kernel', 'initrd', 'disk', 'readyMarker', 'protocol', 'recipeHash', 'initrdSha256'];
  return (
    fields['schema'] === 1 &&
    typeof fields['name'] === 'string' &&
    typeof fields['memoryBytesMin'] === 'number' &&
    textOrNull.every((name) => fields[name] === null || typeof fields[name] === 'string') &&
    Array.isArray(fields['kernelArguments']) &&
    Array.isArray(fields['packages'])
  );
}
