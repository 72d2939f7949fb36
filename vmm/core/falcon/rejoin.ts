/**
 * The way back of a replica that lost its log (memory durability, after its process ended) or fell behind
 * what any memory still holds.
 *
 * Who lost its log may have acknowledged records that it no longer has, so its vote could elect a leader that
 * lacks them. It votes for nobody and stands for nothing until a leader, which knows of its new process and so
 * was elected without it, has brought it up to where that leader's log ended then:
 *
 *   lost its log                        leader
 *      | hello                             |    a new process: what the old one said is void
 *      |---------------------------------->|
 *      |    announce (to this process)     |    level once it holds all up to `lastIndex`
 *      |<----------------------------------|
 *      | region                            |
 *      |---------------------------------->|
 *      |    rebase                         |    only if memory no longer reaches back so far
 *      |<----------------------------------|
 *      | region                            |
 *      |---------------------------------->|    records follow
 *
 * A rebase takes over the committed end of what the leader dropped as the new beginning of the log. What the
 * records before it did to a guest comes by state transfer: the guest here is not VALID from then on.
 */
import type { LogIndex } from '../ids.ts';
import { MessageKind, type ControlMessage } from './control-message.ts';
import type { ReplicaState } from './state.ts';

export class Rejoin {
  readonly #state: ReplicaState;
  #helloUs = -Infinity;

  constructor(state: ReplicaState) {
    this.#state = state;
  }

  /** Says that a new process is here, as long as no leader has told it how far it has to come. */
  tick(): void {
    const state = this.#state;
    if (!state.logLost) return;
    if (state.levelAtIndex !== undefined) {
      if (state.levelAtIndex <= Math.min(state.matchedIndex, state.durableIndex)) state.logLost = false;
      return;
    }
    if (state.nowUs - this.#helloUs < state.settings.times.preVoteRetryUs) return;
    this.#helloUs = state.nowUs;
    for (const voter of state.membership.voters) {
      if (voter !== state.self) state.send(voter, { kind: MessageKind.hello });
    }
  }

  onAnnounce(message: ControlMessage): void {
    const state = this.#state;
    if (state.logLost && message.toProcess === state.settings.processNumber) {
      state.levelAtIndex ??= message.lastIndex;
    }
  }

  /** The leader's log begins behind ours and is taken over from there. True: answer with a fresh region. */
  onRebase(message: ControlMessage): boolean {
    const state = this.#state;
    const { lastIndex: index, lastTerm, lastChecksum } = message;
    if (message.electionTerm !== state.term || message.from !== state.leader) return false;
    if (message.toProcess !== state.settings.processNumber) return false;
    if (index <= state.commitIndex) return true;
    if (state.log.matches(index, lastTerm, lastChecksum)) {
      // It is here already, and committed, as the leader has dropped it: what follows is sent from there.
      if (index > state.matchedIndex) state.matchedIndex = index;
      state.advanceCommit(index);
      return true;
    }
    const { executing, members } = message;
    if (members === undefined) return false;
    state.rebase({ index, term: lastTerm, checksum: lastChecksum, executing }, members);
    return true;
  }

  /** The index that the log was rebased to since this was asked last: the applier goes on behind it. */
  takeRebased(): LogIndex | undefined {
    const { rebasedIndex } = this.#state;
    this.#state.rebasedIndex = undefined;
    return rebasedIndex;
  }
}
