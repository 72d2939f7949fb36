/**
 * Starts agents of this machine that have ended again: the leader's agent does, and where nobody leads, the living
 * one with the lowest id. More than one may try; a replica's lock lets one of them run. Guarantees: a frozen agent is
 * no ended one; each try waits longer than the one before; nothing is started once the VM is being stopped.
 */
import { agentRuns, startAgent } from './agent-process.ts';
import { Backoff, type BackoffTimes } from './core/backoff.ts';
import type { EngineEvent } from './engine-protocol.ts';
import { isLocal, vmIsStopping, vmOff, type ReplicaPlan, type VmPlan } from './vm-plan.ts';

/** The first wait lets a takeover pass, which a starting process would slow down on a small machine. */
const times: BackoffTimes = { firstMs: 500, maxMs: 30_000, soundAfterMs: 60_000 };
/** Without a leader an election is under way; only when none comes of it another one than the leader acts. */
const leaderlessMs = 3000;
const recheckMs = 1000;

/** An agent that has ended. */
export interface MissingPeer {
  readonly replica: number;
  /** For how long; clocks of separate hosts need not agree. */
  readonly forMs: number;
  /** Starts since it was sound last. */
  readonly attempts: number;
}

export interface RevivalFace {
  event(event: EngineEvent): void;
  /** The guest has ended by itself: there is nothing left to do here. */
  off(): void;
}

export class Revival {
  readonly #plan: VmPlan;
  readonly #self: ReplicaPlan;
  readonly #face: RevivalFace;
  readonly #backoffs = new Map<number, Backoff>();
  readonly #timers = new Map<number, NodeJS.Timeout>();
  /** By replica, as `performance.now` tells. */
  readonly #missingSinceMs = new Map<number, number>();
  #leader: number | null = null;
  #leaderlessSinceMs = 0;

  constructor(plan: VmPlan, self: ReplicaPlan, face: RevivalFace) {
    this.#plan = plan;
    this.#self = self;
    this.#face = face;
  }

  leaderIs(leader: number | null): void {
    if (leader === null) this.#leaderlessSinceMs = performance.now();
    this.#leader = leader;
  }

  missing(): MissingPeer[] {
    return [...this.#missingSinceMs].map(([replica, sinceMs]) => {
      return {
        replica,
        forMs: performance.now() - sinceMs,
        attempts: this.#backoffs.get(replica)?.attempts ?? 0,
      };
    });
  }

  peerGone(peer: ReplicaPlan): void {
    this.#missingSinceMs.set(peer.id, performance.now());
    // On another host, a service manager starts it again.
    if (!isLocal(this.#plan, peer.name)) return;
    this.#schedule(peer, this.#backoff(peer).waitMs(performance.now()));
  }

  peerConnected(peer: ReplicaPlan): void {
    clearTimeout(this.#timers.get(peer.id));
    this.#timers.delete(peer.id);
    this.#missingSinceMs.delete(peer.id);
  }

  end(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  #backoff(peer: ReplicaPlan): Backoff {
    const known = this.#backoffs.get(peer.id) ?? new Backoff(times);
    this.#backoffs.set(peer.id, known);
    return known;
  }

  #schedule(peer: ReplicaPlan, waitMs: number): void {
    clearTimeout(this.#timers.get(peer.id));
    this.#timers.set(
      peer.id,
      setTimeout(() => this.#consider(peer), waitMs),
    );
  }

  #consider(peer: ReplicaPlan): void {
    if (vmOff(this.#plan.name) !== undefined) this.#face.off();
    if (vmIsStopping(this.#plan.name)) return;
    if (!this.#mayStart() || agentRuns(this.#plan.name, peer.name)) {
      this.#schedule(peer, recheckMs);
      return;
    }
    const backoff = this.#backoff(peer);
    backoff.started(performance.now());
    this.#face.event({
      name: 'restart',
      text: `Starts the agent of ${peer.name} again (attempt ${backoff.attempts})`,
      data: { replica: peer.id, attempt: backoff.attempts },
    });
    startAgent(this.#plan.name, peer.name);
    this.#schedule(peer, Math.max(recheckMs, backoff.waitMs(performance.now())));
  }

  #mayStart(): boolean {
    if (this.#leader === this.#self.id) return true;
    if (this.#leader !== null || performance.now() - this.#leaderlessSinceMs < leaderlessMs) return false;
    return !this.#plan.replicas.some(
      ({ id, name }) => id < this.#self.id && agentRuns(this.#plan.name, name),
    );
  }
}
