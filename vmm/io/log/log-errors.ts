/** What can be wrong with a durable log, each named so that an operator knows what to do. */
import { dirname } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { GaiaError } from '../../core/errors.ts';

/** The log cannot be begun or taken up: what was found is untouched. */
export class LogRefusedError extends GaiaError {
  /** The file, or the folder, that is to blame. */
  readonly file: string;

  constructor(
    code: `GAIA_LOG_${string}`,
    file: string,
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(code, message, options);
    this.file = file;
  }
}

/** What helps where the log of one replica cannot be taken up, and the others still have theirs. */
export function goOnWithoutLog(folder: string): string {
  return `move its segment-*.log files out of ${folder}, all of them: the replica comes back without a log, and has no vote until it is level`;
}

/** A record that was durable once can no longer be read. */
export class LogCorruptError extends LogRefusedError {
  readonly offsetBytes: number;
  /** The record that should be there, or the first one that is missing. */
  readonly index: number;

  constructor(file: string, offsetBytes: number, index: number, what: string) {
    super(
      'GAIA_LOG_CORRUPT',
      file,
      `${file} is harmed at byte ${offsetBytes}, where record ${index} should be (${what}), and what lies behind was on disk already: ` +
        `this replica must not vote without it; check the disk, then ${goOnWithoutLog(dirname(file))}`,
    );
    this.offsetBytes = offsetBytes;
    this.index = index;
  }
}

/** The disk has failed, or lied once: nothing is written or acknowledged from here on. */
export class LogFailedError extends GaiaError {
  readonly syscall: string;
  /** errno's number, positive. */
  readonly errorNumber: number;

  constructor(folder: string, syscall: string, errorNumber: number, errorName: string) {
    super(
      'GAIA_LOG_FAILED',
      `${syscall} failed with ${errorName} (${errorNumber}) in ${folder}: the replica stops, as nobody knows what the disk holds now; ` +
        'check the disk before the replica is started again',
    );
    this.syscall = syscall;
    this.errorNumber = errorNumber;
  }
}

export class LogFullError extends LogRefusedError {
  constructor(folder: string, bytes: number) {
    super(
      'GAIA_LOG_DISK_FULL',
      folder,
      `${folder} has no room for a log segment of ${bytes / 2 ** 20} MiB: free some space, or start with --durability memory`,
    );
  }
}

/** `errorNumber`: positive, as errno has it. */
export function logFailure(folder: string, syscall: string, errorNumber: number): LogFailedError {
  return new LogFailedError(folder, syscall, errorNumber, getSystemErrorName(-errorNumber));
}
