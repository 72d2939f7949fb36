/** Who has a vote. A majority of the voters, the leader included where it is one, commits and elects. */
import type { ReplicaId } from '../ids.ts';
import { invariant } from '../invariant.ts';

export class Membership {
  readonly voters: readonly ReplicaId[];
  readonly majority: number;
  readonly #isVoter = new Uint8Array(256);

  constructor(voters: readonly ReplicaId[]) {
    invariant(voters.length > 0, 'a cluster has at least one voter');
    invariant(new Set(voters).size === voters.length, 'no voter is named twice');
    this.voters = voters;
    this.majority = Math.floor(voters.length / 2) + 1;
    for (const voter of voters) this.#isVoter[voter] = 1;
  }

  isVoter(replica: ReplicaId): boolean {
    return this.#isVoter[replica] === 1;
  }

  /** The highest value that a majority of the voters reaches, by a table indexed by replica. Allocates nothing. */
  majorityReaches(values: Float64Array): number {
    const { voters, majority } = this;
    let best = -Infinity;
    for (const candidate of voters) {
      const value = values[candidate] ?? 0;
      if (value <= best) continue;
      let reached = 0;
      for (const other of voters) if ((values[other] ?? 0) >= value) reached++;
      if (reached >= majority) best = value;
    }
    return best;
  }
}
