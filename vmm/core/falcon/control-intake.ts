/**
 * Control messages as they arrive: who may have sent one, whether it belongs to a process that still runs, and
 * which part of the replica it is for. Nothing is taken from another cluster, another protocol version, or a
 * second process under a name that is in use.
 */
import type { ReplicaId } from '../ids.ts';
import {
  decodeControlMessage,
  MessageKind,
  type ControlMessage,
  type ControlRefusal,
} from './control-message.ts';
import type { Election } from './election.ts';
import type { Leadership } from './leadership.ts';
import type { Rejoin } from './rejoin.ts';
import type { ReplicaState } from './state.ts';
import type { Transfer } from './transfer.ts';

const REPLICAS = 256;

export interface ControlParts {
  readonly state: ReplicaState;
  readonly leadership: Leadership;
  readonly election: Election;
  readonly transfer: Transfer;
  readonly rejoin: Rejoin;
  /** Asks for a fresh region. */
  regionBroken(): void;
}

export class ControlIntake {
  readonly #parts: ControlParts;
  /** Number and instance of the newest process of each peer. */
  readonly #processes = new Float64Array(REPLICAS);
  readonly #instances = new Float64Array(REPLICAS);

  constructor(parts: ControlParts) {
    this.#parts = parts;
  }

  /**
   * Takes a message that the transport says is from `from`. Members are not asked for: a replica may learn of a
   * change of members later than it hears of whom the change added.
   */
  receive(from: ReplicaId, bytes: Uint8Array): ControlRefusal | undefined {
    const { state, leadership } = this.#parts;
    const message = decodeControlMessage(bytes, state.settings.hardState.clusterId, state.settings.crc32c);
    if (typeof message === 'string') return message;
    if (message.from !== from || message.to !== state.self) return 'replica id';
    if (from === state.self) return 'duplicate replica id';
    const known = this.#processes[from] ?? 0;
    if (message.processNumber < known) return undefined;
    if (message.processNumber === known && message.instance !== this.#instances[from]) {
      return 'duplicate replica id';
    }
    if (message.processNumber > known) {
      this.#processes[from] = message.processNumber;
      this.#instances[from] = message.instance;
      leadership.newProcess(from, message.processNumber);
    }
    // A newer term is entered, whoever tells of it; only a vote request is first weighed against the leader.
    if (message.term > state.term && message.kind !== MessageKind.voteRequest) state.raiseTerm(message.term);
    this.#dispatch(message);
    return undefined;
  }

  #dispatch(message: ControlMessage): void {
    const { state, leadership, election, rejoin, transfer } = this.#parts;
    const ours = message.electionTerm === state.term;
    const leads = state.role === 'leader' && ours;
    switch (message.kind) {
      case MessageKind.preVoteRequest:
        election.onPreVoteRequest(message);
        break;
      case MessageKind.preVoteReply:
        election.onPreVoteReply(message);
        break;
      case MessageKind.voteRequest:
        election.onVoteRequest(message);
        break;
      case MessageKind.voteReply:
        election.onVoteReply(message);
        break;
      case MessageKind.announce:
        if (ours) {
          rejoin.onAnnounce(message);
          election.onAnnounce(message);
        } else state.send(message.from, { kind: MessageKind.newerTerm });
        break;
      case MessageKind.region:
        if (leads) leadership.learnRegion(message);
        break;
      case MessageKind.resync:
        if (leads) leadership.resync(message);
        break;
      case MessageKind.rebase:
        if (rejoin.onRebase(message)) this.#parts.regionBroken();
        break;
      case MessageKind.standNow:
        transfer.onStandNow(message);
        break;
      case MessageKind.hello:
        // It is announced to again, now that its process is known, even if it was before.
        leadership.forgetRegion(message.from);
        break;
      case MessageKind.newerTerm:
        // Its term is all it says; if that is an older one, whoever leads it does not know yet.
        if (message.term < state.term) state.send(message.from, { kind: MessageKind.newerTerm });
        break;
      default: // An unknown kind says nothing.
    }
  }
}
