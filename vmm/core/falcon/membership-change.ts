/**
 * Adding and removing replicas, one at a time. A replica begins as a non-voter and gets a vote once it is
 * level; one that executes is never removed (executing is a subset of voters: it is taken out of the
 * executing set, or hands over, first). Nothing is changed before a record of the own term has committed, nor
 * while another change of members or executors has not: otherwise two leaders could each count a majority
 * that the other does not see.
 */
import { REPLICA_ID_MAX, type LogIndex, type ReplicaId } from '../ids.ts';
import type { ExecutingSet } from './executing-set.ts';
import type { Leadership } from './leadership.ts';
import { memberCount, MEMBERS_MAX, type Members } from './membership.ts';
import type { ReplicaState } from './state.ts';

export type MembershipChange =
  /** A new replica, under an id that was never used before: gets the log, has no vote. */
  | { readonly kind: 'add'; readonly replica: ReplicaId }
  /** A non-voter that is level gets a vote. */
  | { readonly kind: 'promote'; readonly replica: ReplicaId }
  | { readonly kind: 'remove'; readonly replica: ReplicaId };

/** Why the members are not changed now. */
export type MembershipRefusal =
  | 'not leading'
  | 'term not begun'
  | 'transfer under way'
  | 'set change under way'
  | 'log full'
  | 'already a member'
  | 'not a member'
  | 'not level'
  | 'too many members'
  | 'last voter'
  /** Of the voters that would remain, no majority answers now: nothing could be committed any more. */
  | 'no majority'
  | 'executes';

/** A non-voter that lacks more records than this is not level yet: as a voter it would hold up commit. */
const PROMOTION_LAG_RECORDS = 128;

export class MembershipChanger {
  readonly #state: ReplicaState;
  readonly #leadership: Leadership;

  constructor(state: ReplicaState, leadership: Leadership) {
    this.#state = state;
    this.#leadership = leadership;
  }

  /** Why neither members nor executors are changed now, whatever the change. */
  refusal(transferUnderWay: boolean): MembershipRefusal | undefined {
    const state = this.#state;
    if (state.role !== 'leader') return 'not leading';
    if (transferUnderWay) return 'transfer under way';
    if (!this.termHasBegun()) return 'term not begun';
    return this.changeUnderWay() ? 'set change under way' : undefined;
  }

  /** A record of the own term has committed. */
  termHasBegun(): boolean {
    return this.#state.commitIndex >= this.#leadership.serveFromIndex;
  }

  /** A list of members or executors is in the log and not yet committed. */
  changeUnderWay(): boolean {
    const { executing, membership, commitIndex } = this.#state;
    return executing.newestIndex > commitIndex || membership.newestIndex > commitIndex;
  }

  propose(change: MembershipChange, transferUnderWay: boolean): LogIndex | MembershipRefusal {
    const members = this.refusal(transferUnderWay) ?? this.#membersAfter(change);
    if (typeof members === 'string') return members;
    const index = this.#leadership.appendMembers(members);
    return index === 0 ? 'log full' : index;
  }

  #membersAfter({ kind, replica }: MembershipChange): Members | MembershipRefusal {
    const { voters, nonVoters } = this.#state.membership.newest;
    if (kind === 'add') return this.#withNonVoter(replica);
    if (!this.#state.membership.isMember(replica)) return 'not a member';
    if (kind === 'promote') {
      if (voters.includes(replica)) return 'already a member';
      if (!this.#isLevel(replica)) return 'not level';
      return { voters: [...voters, replica], nonVoters: nonVoters.filter((one) => one !== replica) };
    }
    if (this.executes(replica)) return 'executes';
    const remaining = voters.filter((one) => one !== replica);
    if (remaining.length === 0) return 'last voter';
    if (voters.includes(replica) && !this.#majorityAnswers(remaining)) return 'no majority';
    return { voters: remaining, nonVoters: nonVoters.filter((one) => one !== replica) };
  }

  /** By the newest executing set in the log or the newest committed one. */
  executes(replica: ReplicaId): boolean {
    const { executing, commitIndex } = this.#state;
    return names(executing.newest, replica) || names(executing.committed(commitIndex), replica);
  }

  #withNonVoter(replica: ReplicaId): Members | MembershipRefusal {
    const { newest } = this.#state.membership;
    if (replica > REPLICA_ID_MAX || replica < 0 || this.#state.membership.isMember(replica)) {
      return 'already a member';
    }
    if (memberCount(newest) >= MEMBERS_MAX) return 'too many members';
    return { voters: newest.voters, nonVoters: [...newest.nonVoters, replica] };
  }

  #majorityAnswers(voters: readonly ReplicaId[]): boolean {
    const { self } = this.#state;
    const answering = voters.filter((one) => one === self || this.#leadership.peerIsReachable(one));
    return answering.length * 2 > voters.length;
  }

  #isLevel(replica: ReplicaId): boolean {
    const match = this.#leadership.matchOf(replica);
    const lag = this.#state.log.lastIndex - match;
    return match > 0 && lag <= PROMOTION_LAG_RECORDS && this.#leadership.peerIsReachable(replica);
  }
}

function names(set: ExecutingSet, replica: ReplicaId): boolean {
  return set.some((executor) => executor.replica === replica);
}
