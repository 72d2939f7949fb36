/** The exit codes that every command keeps to; scripts rely on them. */
export const exitCode = {
  /** The command did what it was asked; for status: protected. */
  done: 0,
  error: 1,
  /** Unknown command or option, or a value that makes no sense. */
  usage: 2,
  /** The service runs, but one more failure would stop it. */
  degraded: 3,
  noQuorum: 4,
  timeout: 5,
  /** The machine lacks something; the message names the one command that mends it. */
  brokenEnvironment: 6,
} as const;
