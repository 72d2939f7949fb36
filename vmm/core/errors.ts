/** The expected failures of gaia-vm: each has a stable code, values with units, and says what to do next. */

export class GaiaError extends Error {
  /** Stable across releases; scripts may compare it. */
  readonly code: `GAIA_${string}`;

  constructor(code: `GAIA_${string}`, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The machine lacks something that gaia-vm cannot work without; `remedy` is the one command that mends it. */
export class BrokenEnvironmentError extends GaiaError {
  readonly remedy: string;

  constructor(
    code: `GAIA_${string}`,
    message: string,
    remedy: string,
    options?: { readonly cause?: unknown },
  ) {
    super(code, `${message}: run "${remedy}"`, options);
    this.remedy = remedy;
  }
}

/**
 * For a log: what an operator can mend is said in one line, anything else with its stack. An error from another thread
 * has lost its class, and kept its code.
 */
export function explainError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const isExpected = 'code' in error && String(error.code).startsWith('GAIA_');
  return isExpected ? error.message : (error.stack ?? error.message);
}
