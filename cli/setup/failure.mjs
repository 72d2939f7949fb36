/** A step could not be done: one sentence says why and what to do. */
export class SetupFailure extends Error {
  /**
   * @param {string} message
   * @param {number} [exitCode] as in cli/exit-code.ts: 1 an error, 2 wrong usage, 6 a broken environment
   * @param {string} [logFile] where the whole story is
   */
  constructor(message, exitCode = 1, logFile = undefined) {
    super(message);
    this.exitCode = exitCode;
    this.logFile = logFile;
  }
}
