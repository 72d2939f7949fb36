/**
 * Who belongs to the cluster, as the log says it, and who of them has a vote. The newest list present in the
 * log holds from the moment it is appended, committed or not; it is taken back with the record that carried
 * it. Voters change one at a time, so that a majority of the old list and one of the new always share a
 * replica.
 */
import { NO_REPLICA, type LogIndex, type ReplicaId } from '../ids.ts';
import { invariant } from '../invariant.ts';

/** Non-voters get the log and the heartbeat like all others; nobody waits for them, and they elect nobody. */
export interface Members {
  readonly voters: readonly ReplicaId[];
  readonly nonVoters: readonly ReplicaId[];
}

/** Named maximum of members; a change that would pass it is refused. */
export const MEMBERS_MAX = 32;
const MEMBER_BYTES = 8;
const ROLE_NON_VOTER = 0;
const ROLE_VOTER = 1;

export function memberCount(members: Members): number {
  return members.voters.length + members.nonVoters.length;
}

export function membersBytes(members: Members): number {
  return memberCount(members) * MEMBER_BYTES;
}

/** Eight bytes for each member: u32 replica, u32 role (1: has a vote). */
export function encodeMembers(members: Members, view: DataView, at: number): void {
  invariant(memberCount(members) <= MEMBERS_MAX, 'a cluster has few members');
  let position = at;
  for (const [role, list] of [
    [ROLE_VOTER, members.voters],
    [ROLE_NON_VOTER, members.nonVoters],
  ] as const) {
    for (const replica of list) {
      view.setUint32(position, replica, true);
      view.setUint32(position + 4, role, true);
      position += MEMBER_BYTES;
    }
  }
}

export function decodeMembers(view: DataView, at: number, count: number): Members {
  const voters: ReplicaId[] = [];
  const nonVoters: ReplicaId[] = [];
  for (let position = 0; position < count; position++) {
    const replica = view.getUint32(at + position * MEMBER_BYTES, true) as ReplicaId;
    const role = view.getUint32(at + position * MEMBER_BYTES + 4, true);
    (role === ROLE_VOTER ? voters : nonVoters).push(replica);
  }
  return { voters, nonVoters };
}

/** Bytes from elsewhere may say anything: at least one voter, and nobody twice. */
export function membersAreSound(members: Members): boolean {
  const all = [...members.voters, ...members.nonVoters];
  return (
    members.voters.length > 0 && new Set(all).size === all.length && all.every((one) => one < NO_REPLICA)
  );
}

interface Entry {
  readonly index: LogIndex;
  readonly members: Members;
}

export class Membership {
  /** Invariant: never empty, ascending by index; the first is the newest committed one or older. */
  #entries: Entry[];
  #members: Members;
  readonly #isVoter = new Uint8Array(256);
  #all: readonly ReplicaId[] = [];

  constructor(base: Members, index: LogIndex) {
    this.#entries = [{ index, members: base }];
    this.#members = base;
    this.#adopt(base);
  }

  #adopt(members: Members): void {
    invariant(membersAreSound(members), 'a cluster has a voter, and no member is named twice');
    const all = [...members.voters, ...members.nonVoters];
    this.#members = members;
    this.#all = all;
    this.#isVoter.fill(0);
    for (const voter of members.voters) this.#isVoter[voter] = 1;
  }

  /** The newest list in the log: the one that counts. */
  get newest(): Members {
    return this.#members;
  }

  get newestIndex(): LogIndex {
    return this.#entries.at(-1)?.index ?? (0 as LogIndex);
  }

  committed(commitIndex: LogIndex): Members {
    let newest = this.#members;
    for (const entry of this.#entries) if (entry.index <= commitIndex) newest = entry.members;
    return newest;
  }

  get voters(): readonly ReplicaId[] {
    return this.#members.voters;
  }

  /** Voters and non-voters. One array until the list changes. */
  get all(): readonly ReplicaId[] {
    return this.#all;
  }

  get majority(): number {
    return Math.floor(this.#members.voters.length / 2) + 1;
  }

  isVoter(replica: ReplicaId): boolean {
    return this.#isVoter[replica] === 1;
  }

  isMember(replica: ReplicaId): boolean {
    return this.#all.includes(replica);
  }

  append(index: LogIndex, members: Members): void {
    invariant(index > this.newestIndex, 'member lists are appended in order');
    this.#entries.push({ index, members });
    this.#adopt(members);
  }

  /** Called for every record that is truncated or committed, so it does nothing when there is nothing to do. */
  truncateTo(index: LogIndex): void {
    if (this.newestIndex <= index) return;
    while (this.#entries.length > 1 && this.newestIndex > index) this.#entries.pop();
    this.#adopt(this.#entries.at(-1)?.members ?? this.#members);
  }

  forgetBefore(commitIndex: LogIndex): void {
    while ((this.#entries[1]?.index ?? Infinity) <= commitIndex) this.#entries.shift();
  }

  /** As after loading a checkpoint that was taken at `index`. */
  resetTo(index: LogIndex, members: Members): void {
    this.#entries = [{ index, members }];
    this.#adopt(members);
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
