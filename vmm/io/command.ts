/**
 * Runs a program to its end. It dies with this process, however that ends, so that an interrupted build
 * leaves nothing running; its messages are in English, so that they can be told apart; its output goes to a
 * log for people.
 */
import { appendFileSync } from 'node:fs';
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
    stdin: 'ignore',
    all: true,
    reject: false,
    maxBuffer: 256 * 1024 * 1024,
  });
  const tail: string[] = [];
  for await (const line of running.iterable({ from: 'all' })) {
    if (options.logFile !== undefined) appendFileSync(options.logFile, `${line}\n`);
    tail.push(line);
    if (tail.length > tailLinesMax) tail.shift();
    options.onLine?.(line);
  }
  const result = await running;
  if (result.failed) {
    options.signal?.throwIfAborted();
    throw new CommandFailedError(program, result.exitCode, tail, result.cause);
  }
  return result.stdout;
}
