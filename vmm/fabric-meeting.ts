/**
 * How agents that share nothing but a network find each other: a control connection per pair (io/transport/meeting.ts)
 * makes a session, hands the cards to the engines, and ends with the process at its other end. Guarantee: the engine
 * is told of the end of one session before it is asked for the card of the next.
 */
import { randomUUID } from 'node:crypto';
import type { ReplicaId } from './core/ids.ts';
import { PeerMeeting, type PeerAddress } from './io/transport/meeting.ts';
import { TransportError, type PeerCard } from './io/transport/transport.ts';
import type { ReplicaPlan, VmPlan } from './vm-plan.ts';

export interface FabricMeetingFace {
  /** The engine's card for a session, which this text names. Null: the last session has not ended for it. */
  invite(peer: ReplicaPlan, session: string): Promise<PeerCard | null>;
  connect(peer: ReplicaPlan, session: string, card: PeerCard): Promise<boolean>;
  /** The engine is to give the session up, if it has not yet. */
  lost(peer: ReplicaPlan): void;
  refused(error: TransportError): void;
}

export class FabricMeeting {
  readonly #plan: VmPlan;
  readonly #face: FabricMeetingFace;
  readonly #sessions = new Map<ReplicaId, string>();
  readonly #meeting: PeerMeeting;

  constructor(plan: VmPlan, self: ReplicaPlan, face: FabricMeetingFace) {
    this.#plan = plan;
    this.#face = face;
    const addresses = new Map<ReplicaId, PeerAddress>();
    for (const { id, peerAddress } of plan.replicas) {
      if (peerAddress !== undefined) addresses.set(id, peerAddress);
    }
    this.#meeting = new PeerMeeting(
      { clusterId: plan.clusterId, self: self.id, addresses },
      {
        invite: (peer) => this.#invite(this.#peer(peer)),
        connect: (peer, card) => {
          this.#connect(this.#peer(peer), card);
        },
        lost: (peer) => {
          this.#face.lost(this.#peer(peer));
        },
        refused: (error) => {
          this.#face.refused(error);
        },
      },
    );
  }

  /** Listens and dials from now on. Throws `TransportError`. */
  open(): Promise<void> {
    return this.#meeting.open();
  }

  /** The engine has given the session with this peer up: another one is made. */
  drop(peer: ReplicaId): void {
    this.#meeting.drop(peer);
  }

  end(): void {
    this.#meeting.close();
  }

  #peer(id: ReplicaId): ReplicaPlan {
    const peer = this.#plan.replicas.find((replica) => replica.id === id);
    if (peer === undefined) throw new TransportError('GAIA_REPLICA_ID', `The VM has no replica ${id}`);
    return peer;
  }

  async #invite(peer: ReplicaPlan): Promise<PeerCard> {
    const session = randomUUID();
    const card = await this.#face.invite(peer, session);
    if (card === null) throw new Error(`The last session with ${peer.name} has not ended yet`);
    this.#sessions.set(peer.id, session);
    return card;
  }

  #connect(peer: ReplicaPlan, card: PeerCard): void {
    const session = this.#sessions.get(peer.id) ?? '';
    this.#face
      .connect(peer, session, card)
      .then((connected) => {
        if (!connected) this.#meeting.drop(peer.id);
      })
      .catch((error: unknown) => {
        if (error instanceof TransportError) this.#face.refused(error);
        this.#meeting.drop(peer.id);
      });
  }
}
