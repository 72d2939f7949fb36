/**
 * How agents that share nothing but a network find each other: a control connection per pair (io/transport/meeting.ts)
 * makes a session, hands the cards to the engines, and ends with the process at its other end. Guarantee: the engine
 * is told of the end of one session before it is asked for the card of the next.
 */
import { randomUUID } from 'node:crypto';
import type { ReplicaId } from './core/ids.ts';
import type { Question, Refusal } from './io/transport/control-line.ts';
import { PeerMeeting, type PeerAddress } from './io/transport/meeting.ts';
import { TransportError, type PeerCard } from './io/transport/transport.ts';
import type { PeerStates } from './peer-states.ts';
import { factsRefusal } from './shared-facts.ts';
import type { ReplicaPlan, VmPlan } from './vm-plan.ts';

export interface FabricMeetingFace {
  /** The engine's card for a session, which this text names. Null: the last session has not ended for it. */
  invite(peer: ReplicaPlan, session: string): Promise<PeerCard | null>;
  connect(peer: ReplicaPlan, session: string, card: PeerCard): Promise<boolean>;
  /** The engine is to give the session up, if it has not yet. */
  lost(peer: ReplicaPlan): void;
  refused(error: TransportError): void;
  /** What another host asks. */
  answer(question: Question): Promise<unknown>;
}

export class FabricMeeting {
  readonly #plan: VmPlan;
  readonly #self: ReplicaPlan;
  readonly #face: FabricMeetingFace;
  /** Only where the replicas are on separate hosts. */
  readonly #states: PeerStates | undefined;
  readonly #met = new Set<ReplicaId>();
  readonly #sessions = new Map<ReplicaId, string>();
  readonly #meeting: PeerMeeting;

  constructor(plan: VmPlan, self: ReplicaPlan, states: PeerStates | undefined, face: FabricMeetingFace) {
    this.#plan = plan;
    this.#self = self;
    this.#states = states;
    this.#face = face;
    const addresses = new Map<ReplicaId, PeerAddress>();
    for (const { id, peerAddress } of plan.replicas) {
      if (peerAddress !== undefined) addresses.set(id, peerAddress);
    }
    this.#meeting = new PeerMeeting(
      {
        clusterId: plan.clusterId,
        self: self.id,
        addresses,
        about: { ...plan.hosts?.shared, ...(states === undefined ? {} : { state: states.self }) },
      },
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
        judge: (peer, about) => this.#judge(this.#peer(peer), about),
        answer: (question) => this.#face.answer(question),
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

  /** Whether a peer on another host is made of the same, and has kept what it promised. */
  #judge(peer: ReplicaPlan, about: Readonly<Record<string, string>>): Refusal | undefined {
    const { hosts, name } = this.#plan;
    if (hosts === undefined || this.#states === undefined) return undefined;
    const own = { name: this.#self.name, facts: hosts.shared };
    const refusal = factsRefusal(own, { name: peer.name, facts: about });
    if (refusal !== undefined) return refusal;
    if (this.#states.note(peer.name, about['state'] ?? '')) return undefined;
    return {
      code: 'GAIA_PEER_STATE',
      text: `Replica ${peer.name} has not the state that replica ${this.#self.name} knows it by, and could break what it promised: put its state folder back; or end VM ${name} on all hosts ("gaia-vm stop ${name}") and start it afresh`,
    };
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
    this.#met.add(peer.id);
    // From here on the engine may begin, and with it this replica's part in the log.
    if (this.#met.size === this.#plan.replicas.length - 1) this.#states?.begin();
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
