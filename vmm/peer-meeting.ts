/**
 * How agents on one machine find each other: each asks the other's control API for a card made for exactly this
 * process, and hands it to its engine. A peer that has ended is asked again until a new process answers.
 */
import { controlRequest } from './io/control-api.ts';
import type { PeerCard } from './io/transport/transport.ts';
import { replicaFiles, type ReplicaPlan } from './vm-plan.ts';

const retryMs = 50;
const answerTimeoutMs = 1000;

/** How a process of a peer is reached; null: it still takes an earlier process of this replica for alive. */
export interface Invitation {
  readonly process: string;
  readonly card: PeerCard | null;
}

export interface MeetingFace {
  /** Tells the engine how the peer is reached; false: it could not reach it so. */
  connect(peer: ReplicaPlan, invitation: Invitation): Promise<boolean>;
}

export class PeerMeeting {
  readonly #vm: string;
  readonly #self: ReplicaPlan;
  readonly #process: string;
  readonly #face: MeetingFace;
  readonly #ended = new AbortController();

  constructor(vm: string, self: ReplicaPlan, process: string, face: MeetingFace) {
    this.#vm = vm;
    this.#self = self;
    this.#process = process;
    this.#face = face;
  }

  /** Resolves once the peer is connected, or after `end`. */
  async meet(peer: ReplicaPlan): Promise<void> {
    const socket = replicaFiles(this.#vm, peer.name).agentSocket;
    const path = `/v1/card?replica=${this.#self.id}&process=${this.#process}`;
    while (!this.#ended.signal.aborted) {
      const invitation = await controlRequest(socket, 'GET', path, answerTimeoutMs).catch(() => undefined);
      if (isInvitation(invitation) && (await this.#face.connect(peer, invitation))) return;
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  end(): void {
    this.#ended.abort();
  }
}

function isInvitation(value: unknown): value is Invitation {
  return typeof value === 'object' && value !== null && 'process' in value && 'card' in value;
}
