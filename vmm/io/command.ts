/**
 * Runs a program to its end. It dies with this process, however that ends, and what it started ends with it
 * when it fails, so that nothing still writes where a failed build is cleared away; its messages are in English,
 * so that they can be told apart; its output goes to a log for people.
 */
import { appendFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';

export interface CommandOptions {
  readonly folder?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Everything the program prints is appended here. */
  readonly logFile?: string;
  /** Called with each line as it is printed, on either stream. */
  readonly onLine?: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** The program could not be started, failed, or was stopped. */
export class CommandFailedError extends Error {
  readonly command: string;
  /** undefined when it was ended by a signal or never started. */
  readonly exitCode: number | undefined;
  /** Its last lines. */
  readonly tail: readonly string[];

  constructor(command: string, exitCode: number | undefined, tail: readonly string[], cause: unknown) {
    super(`${command} failed: ${tail.at(-1) ?? 'it printed nothing'}`, { cause });
    this.name = 'CommandFailedError';
    this.command = command;
    this.exitCode = exitCode;
    this.tail = tail;
  }

  /** Whether the program complained about a full disk. */
  get diskFull(): boolean {
    return this.tail.some((line) => /no space left on device|disk quota exceeded/i.test(line));
  }
}

const tailLinesMax = 60;
const groupPollMs = 10;

/** On a full disk the log ends; the program meets the same disk, and what it says about it counts. */
function appendToLog(file: string, line: string): void {
  try {
    appendFileSync(file, `${line}\n`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}

/** A program that failed may leave children that still write: ends them, and returns when none is left. */
async function endGroup(leader: number | undefined): Promise<void> {
  if (leader === undefined) return;
  try {
    for (;;) {
      process.kill(-leader, 'SIGKILL');
      await delay(groupPollMs);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Resolves with what the program printed on stdout. Throws `CommandFailedError`. */
export async function runCommand(
  program: string,
  commandArguments: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const running = execa('setpriv', ['--pdeathsig', 'KILL', '--', program, ...commandArguments], {
    ...(options.folder === undefined ? {} : { cwd: options.folder }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    env: { LC_ALL: 'C.UTF-8', ...options.environment },
    // A group of its own, so that what the program started can be ended with it.
    detached: true,
    stdin: 'ignore',
    all: true,
    reject: false,
    maxBuffer: 256 * 1024 * 1024,
  });
  const tail: string[] = [];
  let result;
  try {
    for await (const line of running.iterable({ from: 'all' })) {
      if (options.logFile !== undefined) appendToLog(options.logFile, line);
      tail.push(line);
      if (tail.length > tailLinesMax) tail.shift();
      options.onLine?.(line);
    }
    result = await running;
  } catch (error) {
    await endGroup(running.pid);
    throw error;
  }
  if (result.failed) {
    await endGroup(running.pid);
    options.signal?.throwIfAborted();
    throw new CommandFailedError(program, result.exitCode, tail, result.cause);
  }
  return result.stdout;
}
