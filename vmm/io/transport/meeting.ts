/**
 * The control connections between replicas on different machines: one TCP connection per pair, over which the two
 * make sure that they belong together and exchange the cards of a session. It stays open as long as the session:
 * when a process dies, its system closes the connection, and the peer knows at once.
 *
 *   higher id (dials, again and again)             lower id (listens)
 *      | hello: protocol, cluster, ids, about, card   |
 *      |--------------------------------------------->|   checks, invites, connects
 *      |                        hello, or a refusal   |
 *      |<---------------------------------------------|
 *      | connects                                     |
 *
 * The same port answers questions, one on each connection (peer-question.ts): how a replica is, and the like.
 *
 * Guarantees: a card reaches the transport only from a replica of the same cluster and protocol with an id of its
 * own, which says nothing of itself that this side refuses; one session per peer at a time. It trusts the network:
 * whoever can reach the port can claim an id.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { GaiaError } from '../../core/errors.ts';
import type { ReplicaId } from '../../core/ids.ts';
import {
  isTexts,
  parseQuestion,
  parseRefusal,
  peerProtocol,
  readLine,
  writeLine,
  type Answer,
  type Question,
  type Refusal,
} from './control-line.ts';
import { TransportError, type PeerCard } from './transport.ts';

const helloTimeoutMs = 5000;
/** A host that vanished answers no dialling; one that is back is to be found soon. */
const dialTimeoutMs = 1000;
const redialMs = 100;
const defaultTakenPatienceMs = 10_000;

export interface PeerAddress {
  readonly host: string;
  readonly port: number;
}

export interface MeetingSettings {
  readonly clusterId: string;
  readonly self: ReplicaId;
  /** Where every replica of the VM listens, this one too. */
  readonly addresses: ReadonlyMap<ReplicaId, PeerAddress>;
  /** What this replica says of itself beside its id; the peer's `judge` looks at it. */
  readonly about?: Readonly<Record<string, string>>;
  /** How long this id may seem taken, by a session whose end the peer has not noticed yet. */
  readonly takenPatienceMs?: number;
}

/** Who is told. Nothing is called any more once the meeting is closed. */
export interface MeetingFace {
  /** A card for the next process of this peer. */
  invite(peer: ReplicaId): Promise<PeerCard>;
  connect(peer: ReplicaId, card: PeerCard): void;
  /** The connection has ended: the peer's process is gone, or its host, or the way to it. */
  lost(peer: ReplicaId): void;
  /** The peers do not belong together, which no waiting changes. */
  refused(error: TransportError): void;
  /** Why a peer that says this of itself is no peer. */
  judge?(peer: ReplicaId, about: Readonly<Record<string, string>>): Refusal | undefined;
  /** Answers a question; throws a `GaiaError` to refuse. */
  answer?(question: Question): Promise<unknown>;
}

interface Hello {
  readonly gaia: 'peer';
  readonly protocol: number;
  readonly clusterId: string;
  readonly from: number;
  readonly to: number;
  readonly about: Readonly<Record<string, string>>;
  readonly card: PeerCard;
}

const idTaken = 'GAIA_REPLICA_ID_TAKEN';

export class PeerMeeting {
  readonly #settings: MeetingSettings;
  readonly #face: MeetingFace;
  readonly #connections = new Map<ReplicaId, Socket>();
  readonly #sockets = new Set<Socket>();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #takenSinceMs = new Map<ReplicaId, number>();
  readonly #refusalsSaid = new Set<string>();
  #server: Server | undefined;
  #closed = false;

  constructor(settings: MeetingSettings, face: MeetingFace) {
    this.#settings = settings;
    this.#face = face;
  }

  /** Listens, and dials whoever has a lower id, for as long as it is open. Throws `TransportError`. */
  async open(): Promise<void> {
    const { addresses, self } = this.#settings;
    const own = addresses.get(self);
    if (own === undefined)
      throw new TransportError('GAIA_PEER_ADDRESS', `Replica ${self} has no address to listen on`);
    await this.#listen(own);
    for (const [peer, address] of addresses) if (peer < self) this.#dial(peer, address);
  }

  /** The session with this peer is over for another reason: a new one is made. */
  drop(peer: ReplicaId): void {
    this.#connections.get(peer)?.destroy();
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
  }

  #listen({ host, port }: PeerAddress): Promise<void> {
    const server = createServer((socket) => {
      this.#answer(socket).catch((error: unknown) => {
        this.#endedBadly(socket, error);
      });
    });
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('listening', resolve);
      server.once('error', (error) => {
        reject(
          new TransportError(
            'GAIA_PEER_LISTEN',
            `Cannot listen for peers on ${host} port ${port}: give this replica an address of this machine and a port that is free`,
            { cause: error },
          ),
        );
      });
      server.listen(port, host);
    });
  }

  #dial(peer: ReplicaId, address: PeerAddress): void {
    if (this.#closed) return;
    const again = () => {
      if (this.#closed) return;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#dial(peer, address);
      }, redialMs);
      this.#timers.add(timer);
    };
    const socket = createConnection(address);
    const tooLong = setTimeout(() => socket.destroy(), dialTimeoutMs);
    socket.once('close', () => {
      clearTimeout(tooLong);
      again();
    });
    socket.once('connect', () => {
      clearTimeout(tooLong);
      this.#introduce(socket, peer).catch((error: unknown) => {
        this.#endedBadly(socket, error);
      });
    });
    this.#watch(socket);
  }

  #watch(socket: Socket): void {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 1000);
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy()); // 'close' follows, and says it all.
    socket.once('close', () => this.#sockets.delete(socket));
  }

  /** The dialling side of one connection. */
  async #introduce(socket: Socket, peer: ReplicaId): Promise<void> {
    const card = await this.#face.invite(peer);
    writeLine(socket, this.#hello(peer, card));
    const answer = parseHello(await readLine(socket, helloTimeoutMs));
    if ('code' in answer) {
      socket.destroy();
      this.#takeRefusal(peer, answer);
      return;
    }
    const refusal = this.#check(answer, peer);
    if (refusal !== undefined) {
      socket.destroy();
      this.#refuse(refusal);
      return;
    }
    this.#takenSinceMs.delete(peer);
    this.#begin(socket, peer, answer.card);
  }

  /** The listening side. */
  async #answer(socket: Socket): Promise<void> {
    this.#watch(socket);
    const line = await readLine(socket, helloTimeoutMs);
    const question = parseQuestion(line);
    if (question !== undefined) {
      socket.end(`${JSON.stringify(await this.#answerQuestion(question))}\n`);
      return;
    }
    const hello = parseHello(line);
    if ('code' in hello) {
      socket.destroy();
      return;
    }
    const refusal = this.#check(hello) ?? this.#checkFree(hello.from);
    if (refusal !== undefined) {
      socket.end(`${JSON.stringify(refusal)}\n`);
      // Who claims this replica's own id, or comes from another cluster, is a mistake of this side too.
      if (refusal.code !== idTaken) this.#refuse(refusal);
      return;
    }
    const peer = hello.from as ReplicaId;
    const card = await this.#face.invite(peer);
    if (this.#connections.has(peer)) socket.destroy();
    this.#begin(socket, peer, hello.card);
    writeLine(socket, this.#hello(peer, card));
  }

  async #answerQuestion(question: Question): Promise<Answer | Refusal> {
    const { clusterId, self } = this.#settings;
    if (question.protocol !== peerProtocol)
      return this.#otherProtocol('The asking gaia-vm', question.protocol);
    if (question.clusterId !== null && question.clusterId !== clusterId)
      return {
        code: 'GAIA_PEER_CLUSTER',
        text: `Replica ${self} belongs to cluster ${clusterId}, not to ${question.clusterId}`,
      };
    try {
      return { answer: await this.#face.answer?.(question) };
    } catch (error) {
      if (error instanceof GaiaError) return { code: error.code, text: error.message };
      throw error;
    }
  }

  #otherProtocol(who: string, protocol: number): Refusal {
    return {
      code: 'GAIA_PEER_PROTOCOL',
      text: `${who} speaks protocol ${protocol}, replica ${this.#settings.self} speaks ${peerProtocol}: run the same version of gaia-vm on all hosts`,
    };
  }

  #hello(to: ReplicaId, card: PeerCard): Hello {
    const { clusterId, self, about = {} } = this.#settings;
    return { gaia: 'peer', protocol: peerProtocol, clusterId, from: self, to, about, card };
  }

  /** Why this is not a peer; `expected` on the side that knows whom it called. */
  #check(hello: Hello, expected?: ReplicaId): Refusal | undefined {
    const { clusterId, self, addresses } = this.#settings;
    if (hello.protocol !== peerProtocol) {
      const from = expected ?? hello.from;
      return this.#otherProtocol(Number.isNaN(from) ? 'A peer' : `Replica ${from}`, hello.protocol);
    }
    if (hello.clusterId !== clusterId)
      return {
        code: 'GAIA_PEER_CLUSTER',
        text: `Replica ${hello.from} belongs to cluster ${hello.clusterId}, replica ${self} to ${clusterId}: see that the addresses name replicas of one VM`,
      };
    if (hello.from === self)
      return {
        code: 'GAIA_REPLICA_ID',
        text: `Two replicas run with the id ${self}: give each an id of its own`,
      };
    if (hello.to !== self || (expected !== undefined && hello.from !== expected) || !this.#knows(hello.from))
      return {
        code: 'GAIA_REPLICA_ID',
        text: `Replica ${hello.from} looks for replica ${hello.to} where replica ${self} runs, whose peers are ${[...addresses.keys()].join(', ')}: see that all replicas have the same list of addresses`,
      };
    return this.#face.judge?.(hello.from as ReplicaId, hello.about);
  }

  #knows(id: number): boolean {
    return this.#settings.addresses.has(id as ReplicaId);
  }

  #checkFree(from: number): Refusal | undefined {
    if (!this.#connections.has(from as ReplicaId)) return undefined;
    return {
      code: idTaken,
      text: `Replica ${from} is connected to replica ${this.#settings.self} already: two processes run with the id ${from}`,
    };
  }

  /** An id may seem taken for a moment after its process was started again. */
  #takeRefusal(peer: ReplicaId, refusal: Refusal): void {
    if (refusal.code === idTaken) {
      const since = this.#takenSinceMs.get(peer) ?? performance.now();
      this.#takenSinceMs.set(peer, since);
      if (performance.now() - since < (this.#settings.takenPatienceMs ?? defaultTakenPatienceMs)) return;
    }
    this.#refuse(refusal);
  }

  /** Said once: the dialling goes on, in case somebody mends the other side. */
  #refuse({ code, text }: Refusal): void {
    if (this.#closed || this.#refusalsSaid.has(text)) return;
    this.#refusalsSaid.add(text);
    this.#face.refused(new TransportError(code, text));
  }

  #begin(socket: Socket, peer: ReplicaId, card: PeerCard): void {
    if (this.#closed || socket.destroyed) return;
    this.#connections.set(peer, socket);
    socket.resume();
    socket.once('close', () => {
      if (this.#connections.get(peer) !== socket) return;
      this.#connections.delete(peer);
      if (!this.#closed) this.#face.lost(peer);
    });
    this.#face.connect(peer, card);
  }

  #endedBadly(socket: Socket, error: unknown): void {
    socket.destroy();
    if (error instanceof TransportError) this.#refuse({ code: error.code, text: error.message });
  }
}

/** A hello or a refusal; throws at anything else. */
function parseHello(value: unknown): Hello | Refusal {
  const refusal = parseRefusal(value);
  if (refusal !== undefined) return refusal;
  const { gaia, protocol, clusterId, from, to, about = {}, card } = (value ?? {}) as Partial<Hello>;
  // Another version's hello may have other fields: it is refused for its version, whatever they are.
  if (gaia === 'peer' && typeof protocol === 'number' && protocol !== peerProtocol)
    return { gaia, protocol, clusterId: '', from: Number(from), to: Number(to), about: {}, card: {} };
  const whole =
    gaia === 'peer' &&
    typeof protocol === 'number' &&
    typeof clusterId === 'string' &&
    typeof from === 'number' &&
    typeof to === 'number' &&
    isTexts(about) &&
    typeof card === 'object';
  if (!whole) throw new Error('The peer said no hello');
  return { gaia, protocol, clusterId, from, to, about, card };
}
