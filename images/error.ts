/**
 * The expected failures of building and describing guest images.
 * It has the shape of the errors of vmm/ (a stable code, a message that says what to do next) without
 * importing them, because images/ stands alone.
 */

export type ImageErrorCode =
  | 'GAIA_IMAGE_UNKNOWN'
  | 'GAIA_IMAGE_NOT_BUILT'
  | 'GAIA_IMAGE_RECIPE'
  | 'GAIA_IMAGE_BROKEN'
  | 'GAIA_IMAGE_SOURCES'
  | 'GAIA_IMAGE_NETWORK'
  | 'GAIA_IMAGE_PACKAGE'
  | 'GAIA_IMAGE_DISK_FULL'
  | 'GAIA_IMAGE_NO_ACCESS'
  | 'GAIA_IMAGE_TOOL';

export class ImageError extends Error {
  /** Stable across releases; scripts may compare it. */
  readonly code: ImageErrorCode;

  constructor(code: ImageErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = 'ImageError';
    this.code = code;
  }
}

/** The `code` of a Node system error, or undefined for anything else. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

const noAccessCodes = new Set(['EACCES', 'EPERM', 'EROFS', 'ENOTDIR']);

/** Gives a failed write its meaning for the operator; any other error passes through as it is. */
export function explainWriteError(error: unknown, folder: string): unknown {
  const code = systemErrorCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new ImageError(
      'GAIA_IMAGE_DISK_FULL',
      `No space left in ${folder}: free about 1 GiB there, or move everything with GAIA_ROOT=FOLDER`,
      { cause: error },
    );
  }
  if (code !== undefined && noAccessCodes.has(code)) {
    return new ImageError(
      'GAIA_IMAGE_NO_ACCESS',
      `${folder} cannot be written to: run as root, or move everything with GAIA_ROOT=FOLDER`,
      { cause: error },
    );
  }
  return error;
}
