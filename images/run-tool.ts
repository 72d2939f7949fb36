/** Runs the programs that images are built with, and gives their common failures a meaning. */

import { execa, type ExecaError } from 'execa';

import { explainWriteError, ImageError, systemErrorCode } from './error.ts';

export interface ToolRun {
  readonly program: string;
  readonly args: readonly string[];
  readonly signal?: AbortSignal | undefined;
  /** The program may report on file descriptor 3. */
  readonly onStatus?: (text: string) => void;
  /** Named in the message when the disk is full. */
  readonly folder: string;
}

/** A program that ran and failed; the caller knows what that means. */
export class ToolFailedError extends Error {
  readonly stderr: string;

  constructor(summary: string, stderr: string, cause: unknown) {
    super(summary, { cause });
    this.name = 'ToolFailedError';
    this.stderr = stderr;
  }
}

/**
 * Resolves with what the program printed on its standard output. Rejects with the reason of an aborted
 * signal, with an ImageError for a missing program or a full disk, and else with a ToolFailedError.
 */
export async function runTool(run: ToolRun): Promise<string> {
  run.signal?.throwIfAborted();
  try {
    const child = execa(run.program, run.args, {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      env: { LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
      ...(run.signal === undefined ? {} : { cancelSignal: run.signal }),
    });
    child.stdio[3].on('data', (chunk: Buffer) => run.onStatus?.(chunk.toString()));
    const { stdout } = await child;
    return stdout;
  } catch (error) {
    run.signal?.throwIfAborted();
    throw explain(error as ExecaError, run);
  }
}

function explain(error: ExecaError, run: ToolRun): unknown {
  if (error.code === 'ENOENT') {
    return new ImageError(
      'GAIA_IMAGE_TOOL',
      `"${run.program}" is missing: build images on Debian 12, or bring an own kernel and initrd`,
      { cause: error },
    );
  }
  const stderr = typeof error.stderr === 'string' ? error.stderr : '';
  if (systemErrorCode(error) === 'ENOSPC' || /No space left|enough free space/.test(stderr)) {
    return explainWriteError(Object.assign(error, { code: 'ENOSPC' }), run.folder);
  }
  return new ToolFailedError(error.shortMessage, stderr, error);
}
