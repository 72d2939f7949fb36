/**
 * Pre-vote, vote, and the answers to both. At most one leader per term: a replica votes once a term, its
 * vote is durable before anyone hears of it, and a vote goes only to a log that lacks nothing committed.
 */
import { NO_REPLICA, type LogIndex, type ReplicaId, type Term } from '../ids.ts';
import { MessageKind, type ControlMessage } from './control-message.ts';
import type { ExecutingSet } from './executing-set.ts';
import type { Leadership } from './leadership.ts';
import type { ReplicaState } from './state.ts';

export class Election {
  readonly #state: ReplicaState;
  readonly #leadership: Leadership;
  readonly #votes = new Set<ReplicaId>();
  /** The last pre-vote refused only because the leader was still heard; answered anew when it is gone. */
  #deferred: ControlMessage | undefined;
  #askAgainUs = 0;
  #answeredUs = 0;
  #handOver = false;
  /** What the old leader wants named in the first record of the term it handed over. */
  #handedSet: ExecutingSet = [];

  constructor(state: ReplicaState, leadership: Leadership) {
    this.#state = state;
    this.#leadership = leadership;
  }

  tick(): void {
    const state = this.#state;
    this.#repeatKey();
    if (state.role === 'candidate' && state.nowUs >= this.#askAgainUs) this.#askForVotes();
    if (state.role === 'preCandidate' ? state.nowUs < this.#askAgainUs : !this.#silenceIsOver) return;
    if (this.#mayStand && !state.logLost) this.askPreVotes();
    else this.#callForLeader();
  }

  /**
   * Also while the own removal has not committed: this log may be longer than that of any other voter, whose
   * votes it would then refuse for ever. It does not count itself, and steps down once the removal has committed.
   */
  get #mayStand(): boolean {
    const { membership, self, commitIndex } = this.#state;
    return membership.isVoter(self) || membership.committed(commitIndex).voters.includes(self);
  }

  /** Who may not stand says that it is here: a leader may be putting into the memory of a process that ended. */
  #callForLeader(): void {
    const state = this.#state;
    state.restartElectionTimer();
    for (const voter of state.membership.voters) {
      if (voter !== state.self) state.send(voter, { kind: MessageKind.hello });
    }
  }

  get #silenceIsOver(): boolean {
    return this.#state.watchUs >= this.#state.electionDeadlineUs;
  }

  /** When `tick` has something to do next: also to look, since only watched silence counts. */
  get deadlineUs(): number {
    const state = this.#state;
    if (state.role === 'preCandidate') return this.#askAgainUs;
    const leftUs = state.electionDeadlineUs - state.watchUs;
    const lookUs = state.nowUs + (leftUs < state.lookGapUs ? leftUs : state.lookGapUs);
    return state.role === 'candidate' && this.#askAgainUs < lookUs ? this.#askAgainUs : lookUs;
  }

  /** An answer with a key may get lost: as long as the writer gives no sign in its region, it is repeated. */
  #repeatKey(): void {
    const state = this.#state;
    const { region, nowUs } = state;
    if (region.status !== 'open' || region.heartbeatCounter > 0) return;
    if (nowUs - this.#answeredUs < 4 * state.settings.times.heartbeatIntervalUs) return;
    this.answerWithRegion();
  }

  /** The leader's process is known to have ended: no need to wait for its silence. */
  leaderGone(): void {
    const state = this.#state;
    state.leaderGone = true;
    state.electionTimerStartUs = state.watchUs;
    state.waitsNoLonger = true;
    const deferred = this.#deferred;
    this.#deferred = undefined;
    if (deferred !== undefined) this.onPreVoteRequest(deferred);
    this.tick();
  }

  askPreVotes(): void {
    const state = this.#state;
    state.role = 'preCandidate';
    this.#votes.clear();
    if (state.membership.isVoter(state.self)) this.#votes.add(state.self);
    this.#setAskAgain();
    for (const voter of state.membership.voters) {
      if (voter === state.self) continue;
      state.send(voter, { kind: MessageKind.preVoteRequest, electionTerm: (state.term + 1) as Term });
    }
    if (this.#votes.size >= state.membership.majority) this.stand(false, []);
  }

  #setAskAgain(): void {
    const { preVoteRetryUs } = this.#state.settings.times;
    this.#askAgainUs = this.#state.nowUs + preVoteRetryUs * (1 + this.#state.settings.random());
  }

  onPreVoteRequest(message: ControlMessage): void {
    const state = this.#state;
    // A peer that asks does not hear this leader, whatever became of the puts into its region.
    if (state.role === 'leader' && message.term === state.term) this.#leadership.forgetRegion(message.from);
    const newer = message.electionTerm > state.term;
    const willing = state.role !== 'leader' && !state.leaderIsFresh && !state.logLost;
    const upToDate = state.logIsUpToDate(message.lastTerm, message.lastIndex);
    if (newer && upToDate && !willing && state.role === 'follower') this.#deferred = message;
    // The asker cannot win: whoever holds the longer log need not wait for its own time to come.
    if (willing && !upToDate && state.role === 'follower') state.waitsNoLonger = true;
    state.send(message.from, {
      kind: MessageKind.preVoteReply,
      electionTerm: message.electionTerm,
      granted: newer && willing && upToDate,
    });
  }

  onPreVoteReply(message: ControlMessage): void {
    const state = this.#state;
    if (state.role !== 'preCandidate' || message.electionTerm !== state.term + 1 || !message.granted) return;
    if (!state.membership.isVoter(message.from)) return;
    this.#votes.add(message.from);
    if (this.#votes.size >= state.membership.majority) this.stand(false, []);
  }

  /** Begins a term as its candidate. `handedSet`: see `standNow` in control-message.ts. */
  stand(handOver: boolean, handedSet: ExecutingSet): void {
    const state = this.#state;
    state.raiseTerm((state.term + 1) as Term);
    state.votedFor = state.self;
    state.role = 'candidate';
    state.restartElectionTimer();
    this.#handOver = handOver;
    this.#handedSet = handedSet;
    this.#votes.clear();
    this.#leadership.prepare();
    this.#askForVotes();
  }

  #askForVotes(): void {
    const state = this.#state;
    this.#setAskAgain();
    for (const voter of state.membership.voters) {
      if (voter === state.self || this.#votes.has(voter)) continue;
      state.send(voter, {
        kind: MessageKind.voteRequest,
        handOver: this.#handOver,
        key: state.ackMemoryKey,
      });
    }
  }

  /** The own vote counts like any other: only once it is durable. */
  ownVoteIsDurable(): void {
    const state = this.#state;
    if (state.role === 'candidate' && state.votedFor === state.self) this.#count(state.self);
  }

  onVoteRequest(message: ControlMessage): void {
    const state = this.#state;
    const { from, electionTerm } = message;
    // A leader that is heard keeps its followers, unless it hands over itself.
    const kept = !message.handOver && state.leaderIsFresh && state.leader !== from;
    if (electionTerm > state.term && !kept) state.raiseTerm(electionTerm);
    if (electionTerm < state.term || kept || !this.mayVoteFor(from, message.lastTerm, message.lastIndex)) {
      state.send(from, { kind: MessageKind.voteReply, electionTerm });
      return;
    }
    if (state.votedFor !== from) {
      state.votedFor = from;
      state.hardStateDirty = true;
    }
    state.becomeFollower();
    state.restartElectionTimer();
    state.leaderAckKey = message.key;
    if (state.region.isFor(from, electionTerm)) {
      state.region.answersVote = true;
      if (state.region.status === 'open') this.answerWithRegion();
    } else state.region.ask(from, electionTerm, true);
  }

  /** Once a term, and never for a log that may lack a committed record. */
  mayVoteFor(candidate: ReplicaId, lastTerm: Term, lastIndex: LogIndex): boolean {
    const state = this.#state;
    if (state.logLost || (state.role !== 'follower' && state.role !== 'preCandidate')) return false;
    const free = state.votedFor === NO_REPLICA || state.votedFor === candidate;
    return free && state.logIsUpToDate(lastTerm, lastIndex);
  }

  answerWithRegion(): void {
    const state = this.#state;
    const { region } = state;
    this.#answeredUs = state.nowUs;
    state.send(region.writer, {
      kind: region.answersVote ? MessageKind.voteReply : MessageKind.region,
      granted: true,
      regionNumber: region.number,
      key: region.key,
    });
  }

  onVoteReply(message: ControlMessage): void {
    const state = this.#state;
    if (message.electionTerm !== state.term || !message.granted) return;
    if (!state.membership.isVoter(message.from)) return;
    if (state.role !== 'candidate' && state.role !== 'leader') return;
    this.#leadership.learnRegion(message);
    if (state.role === 'candidate') this.#count(message.from);
  }

  #count(voter: ReplicaId): void {
    const state = this.#state;
    if (state.membership.isVoter(voter)) this.#votes.add(voter);
    if (this.#votes.size >= state.membership.majority) this.#leadership.begin(this.#firstSet());
  }

  /** The executing set that the first record of the new term states. */
  #firstSet(): ExecutingSet {
    const state = this.#state;
    const { executing, eligible, self, executorIncarnation } = state;
    // Who may not serve changes nothing about who may.
    if (!eligible) return executing.newest;
    if (this.#handedSet.length > 0) return this.#handedSet;
    return [{ replica: self, incarnation: executorIncarnation }];
  }

  /** Someone won the term we are in: it is followed, and gets the key of a region of its own. */
  onAnnounce(message: ControlMessage): void {
    const state = this.#state;
    if (state.role === 'leader') return;
    state.heardLeader(message.from);
    state.leaderAckKey = message.key;
    const { region } = state;
    const current = region.isFor(message.from, state.term);
    // A region that the leader knows and asks for again is lost to it: puts may be missing in there.
    if (!current || (region.status === 'open' && region.number <= message.regionNumber)) {
      region.ask(message.from, state.term, false);
    } else if (region.status === 'open') this.answerWithRegion();
  }
}
