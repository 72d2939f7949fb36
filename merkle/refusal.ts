/** Input from the other side that cannot be what it claims to be: refused, and nothing was changed. */
export class MerkleRefusal extends Error {
  readonly code: `GAIA_MERKLE_${string}`;

  constructor(code: `GAIA_MERKLE_${string}`, message: string) {
    super(message);
    this.name = 'MerkleRefusal';
    this.code = code;
  }
}
