/**
 * The control connections between replicas on different machines: one TCP connection per pair, over which the two
 * make sure that they belong together and exchange the cards of a session. It stays open as long as the session:
 * when a process dies, its system closes the connection, and the peer knows at once.
 *
 *   higher id (dials, again and again)             lower id (listens)
 *      | hello: protocol, cluster, ids, card          |
 *      |--------------------------------------------->|   checks, invites, connects
 *      |                        hello, or a refusal   |
 *      |<---------------------------------------------|
 *      | connects                                     |
 *
 * Guarantees: a card reaches the transport only from a replica of the same cluster and protocol with an id of its
 * own; one session per peer at a time. It trusts the network: whoever can reach the port can claim an id.
 */
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import type { ReplicaId } from '../../core/ids.ts';
import { TransportError, type PeerCard } from './transport.ts';

/** Raised with every change that an older replica would misunderstand. */
const peerProtocol = 1;
const helloBytesMax = 64 * 1024;
const helloTimeoutMs = 5000;
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
}

interface Hello {
  readonly gaia: 'peer';
  readonly protocol: number;
  readonly clusterId: string;
  readonly from: number;
  readonly to: number;
  readonly card: PeerCard;
}

interface Refusal {
  readonly code: `GAIA_${string}`;
  readonly text: string;
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
    socket.once('close', again);
    socket.once('connect', () => {
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
    write(socket, this.#hello(peer, card));
    const answer = await readHello(socket);
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
    const hello = await readHello(socket);
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
    write(socket, this.#hello(peer, card));
  }

  #hello(to: ReplicaId, card: PeerCard): Hello {
    const { clusterId, self } = this.#settings;
    return { gaia: 'peer', protocol: peerProtocol, clusterId, from: self, to, card };
  }

  /** Why this is not a peer; `expected` on the side that knows whom it called. */
  #check(hello: Hello, expected?: ReplicaId): Refusal | undefined {
    const { clusterId, self, addresses } = this.#settings;
    if (hello.protocol !== peerProtocol)
      return {
        code: 'GAIA_PEER_PROTOCOL',
        text: `Replica ${hello.from} speaks protocol ${hello.protocol}, replica ${self} speaks ${peerProtocol}: run the same version of gaia-vm on all hosts`,
      };
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
    return undefined;
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

function write(socket: Socket, hello: Hello): void {
  socket.write(`${JSON.stringify(hello)}\n`);
}

/** One line of JSON that is a hello or a refusal; anything else, silence or an end rejects. */
function readHello(socket: Socket): Promise<Hello | Refusal> {
  return new Promise((resolve, reject) => {
    let text = '';
    const finish = () => {
      socket.off('data', take);
      socket.off('close', ended);
      socket.setTimeout(0);
    };
    const ended = () => {
      finish();
      reject(new Error('The peer has hung up'));
    };
    const take = (data: Buffer) => {
      text += data.toString('utf8');
      if (text.length > helloBytesMax) socket.destroy();
      if (!text.includes('\n')) return;
      finish();
      const said = parseHello(text.slice(0, text.indexOf('\n')));
      if (said === undefined) reject(new Error('The peer said no hello'));
      else resolve(said);
    };
    socket.on('data', take);
    socket.on('close', ended);
    socket.setTimeout(helloTimeoutMs, () => socket.destroy());
  });
}

function parseHello(line: string): Hello | Refusal | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { code, text } = value as Partial<Refusal>;
  if (typeof code === 'string' && typeof text === 'string') return { code, text };
  const { gaia, protocol, clusterId, from, to, card } = value as Partial<Hello>;
  const whole =
    gaia === 'peer' &&
    typeof protocol === 'number' &&
    typeof clusterId === 'string' &&
    typeof from === 'number' &&
    typeof to === 'number' &&
    typeof card === 'object';
  return whole ? { gaia, protocol, clusterId, from, to, card } : undefined;
}
