/** Bugs stop the replica: a condition that must hold and does not is never carried on with. */

class InvariantError extends Error {
  constructor(text: string) {
    super(`Invariant broken: ${text}`);
    this.name = 'InvariantError';
  }
}

/** Kept on in production. Throws `InvariantError` unless `condition` holds. */
export function invariant(condition: boolean, text: string): asserts condition {
  if (!condition) throw new InvariantError(text);
}
