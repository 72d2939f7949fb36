/**
 * Leadership given away: on the operator's word (planned transfer), or because the replica that won the
 * term may not execute (hand-over). The successor is brought level, then told to stand at once. While that
 * is under way nothing is proposed and nothing released; if it does not come about in time, this leader
 * serves again only after a fresh record of its own has committed, which the successor then lacks.
 */
import { NO_REPLICA, type ReplicaId } from '../ids.ts';
import { MessageKind, type ControlMessage } from './control-message.ts';
import type { ExecutingSet } from './executing-set.ts';
import type { Election } from './election.ts';
import type { Leadership } from './leadership.ts';
import { RecordType } from './record-type.ts';
import type { ReplicaState } from './state.ts';

/** Who executes under this leader. `none` is NO-EXECUTOR: nobody eligible can be reached. */
export type ExecutorState = 'self' | 'handing over' | 'none' | 'not leading';

export class Transfer {
  readonly #state: ReplicaState;
  readonly #leadership: Leadership;
  readonly #election: Election;
  #target: ReplicaId = NO_REPLICA;
  #planned = false;
  #executing: ExecutingSet = [];
  #deadlineUs = 0;
  #sendAgainUs = 0;
  /** Where the search for a successor goes on after one did not win in time. */
  #position = 0;

  constructor(state: ReplicaState, leadership: Leadership, election: Election) {
    this.#state = state;
    this.#leadership = leadership;
    this.#election = election;
  }

  get underWay(): boolean {
    return this.#state.role === 'leader' && this.#target !== NO_REPLICA;
  }

  get executorState(): ExecutorState {
    if (this.#state.role !== 'leader') return 'not leading';
    if (this.#target !== NO_REPLICA) return 'handing over';
    return this.#state.eligible ? 'self' : 'none';
  }

  begin(target: ReplicaId, planned: boolean, executing: ExecutingSet): void {
    this.#target = target;
    this.#planned = planned;
    this.#executing = executing;
    this.#deadlineUs = this.#state.nowUs + this.#state.settings.times.transferTimeoutUs;
    this.#sendAgainUs = 0;
    this.tick();
  }

  tick(): void {
    const state = this.#state;
    if (state.role !== 'leader') {
      this.#target = NO_REPLICA;
      return;
    }
    if (this.#target === NO_REPLICA && !state.eligible) this.#findSuccessor();
    if (this.#target === NO_REPLICA) return;
    if (state.nowUs >= this.#deadlineUs) this.#giveUp();
    else this.#push();
  }

  #findSuccessor(): void {
    const peers = this.#state.membership.voters;
    for (let step = 0; step < peers.length; step++) {
      const peer = peers[(this.#position + step) % peers.length] ?? NO_REPLICA;
      if (peer === this.#state.self || !this.#leadership.peerMayServe(peer)) continue;
      this.#position = (this.#position + step + 1) % peers.length;
      this.begin(peer, false, []);
      return;
    }
  }

  #push(): void {
    const state = this.#state;
    if (this.#leadership.matchOf(this.#target) !== state.log.lastIndex) return;
    if (state.nowUs < this.#sendAgainUs) return;
    this.#sendAgainUs = state.nowUs + state.settings.times.heartbeatIntervalUs;
    state.send(this.#target, { kind: MessageKind.standNow, executing: this.#executing });
  }

  #giveUp(): void {
    const planned = this.#planned;
    this.#target = NO_REPLICA;
    // Where the guest may not run here, nothing is served either way: the next candidate is tried.
    if (!planned && !this.#state.eligible) return;
    const payloadAt = this.#leadership.reserve(0, RecordType.noOperation);
    const index = payloadAt === -1 ? 0 : this.#leadership.append(payloadAt, RecordType.noOperation, 0, 0);
    // Without room for that record nothing tells our log from the successor's: a new term must.
    if (index === 0) this.#state.becomeFollower();
    else this.#leadership.serveFromIndex = index;
  }

  /** The leader's word to stand holds only while this log ends as that of the leader did when it said so. */
  onStandNow(message: ControlMessage): void {
    const state = this.#state;
    if (message.electionTerm !== state.term || message.from !== state.leader) return;
    if (state.role !== 'follower' || !state.membership.isVoter(state.self) || state.logLost) return;
    if (!state.log.matches(message.lastIndex, message.lastTerm, message.lastChecksum)) return;
    if (state.log.lastIndex !== message.lastIndex || !state.eligible) return;
    this.#election.stand(true, message.executing);
  }
}
