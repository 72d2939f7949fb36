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
