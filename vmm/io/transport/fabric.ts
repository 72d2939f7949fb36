/**
 * The transport for replicas that share nothing but a network: one-sided puts by libfabric, over TCP (`tcp;ofi_rxm`)
 * or RDMA (`verbs;ofi_rxm`). fabric-session.ts draws how a session works. Guarantees as transport.ts; and opening
 * it fails with what is missing on this machine.
 */
import { closeSync, readFileSync } from 'node:fs';
import { native } from '../../../native/binding.ts';
import { fabric, type FabricEndpoint } from '../../../native/fabric.ts';
import type { ReplicaId } from '../../core/ids.ts';
import { regionRingBytes } from './fabric-region.ts';
import {
  FabricSession,
  sessionBytes,
  tokensPerSession,
  type FabricTimes,
  type SessionFace,
} from './fabric-session.ts';
import { TransportError, type PeerCard, type Transport, type TransportPeer } from './transport.ts';

export type FabricProvider = 'tcp;ofi_rxm' | 'verbs;ofi_rxm';

export interface FabricSettings {
  readonly provider: FabricProvider;
  /** The local address that peers reach, numeric. */
  readonly address: string;
  readonly times?: FabricTimes;
}

const defaultTimes: FabricTimes = { refreshUs: 50_000, silenceUs: 3_000_000 };
const completionsPerPoll = 128;
/** CAP_IPC_LOCK of linux/capability.h. */
const ipcLockCapability = 14n;
/** Messages both ways, and a region both ways. */
const pinnedBytesLeast = 2 * (sessionBytes + regionRingBytes);

/** A card of this transport. */
interface FabricCard {
  readonly transport: 'fabric';
  readonly provider: string;
  readonly from: number;
  readonly to: number;
  readonly session: number;
  /** Hexadecimal: the endpoint's name, and the key of the memory that the addressed peer writes. */
  readonly name: string;
  readonly memoryKey: string;
}

interface Invitation {
  readonly session: number;
  readonly landing: number;
}

export class FabricTransport implements Transport, SessionFace {
  readonly self: ReplicaId;
  readonly wakeFd: number;
  readonly waitFds: readonly number[];
  readonly endpoint: FabricEndpoint;
  readonly times: FabricTimes;
  readonly putsWake: boolean;
  readonly #provider: FabricProvider;
  readonly #doorbellFd: number;
  readonly #name: string;
  readonly #invited = new Map<ReplicaId, Invitation>();
  readonly #peers = new Map<ReplicaId, FabricSession>();
  #all: readonly FabricSession[] = [];
  readonly #byToken = new Map<number, FabricSession>();
  readonly #gone: ReplicaId[] = [];
  readonly #failures = new Map<ReplicaId, string>();
  /** Failed in this pass: closed at its end, when nobody is inside them any more. */
  #failed: FabricSession[] = [];
  readonly #tokens = new Uint32Array(completionsPerPoll);
  readonly #errors = new Int32Array(completionsPerPoll);
  #lastSession = 0;

  /** Throws `TransportError` when this machine has no such fabric. */
  constructor(self: ReplicaId, settings: FabricSettings) {
    this.self = self;
    this.times = settings.times ?? defaultTimes;
    this.#provider = settings.provider;
    // Over RDMA a put passes the peer's processor by: nothing there would end a wait.
    this.putsWake = settings.provider.startsWith('tcp');
    this.endpoint = openEndpoint(settings.provider, settings.address);
    if (!this.putsWake && lockedMemoryIsLimited()) this.#tryPinning();
    this.#name = Buffer.from(this.endpoint.name()).toString('hex');
    [this.#doorbellFd, this.wakeFd] = native().pipeCreate();
    this.waitFds = [this.#doorbellFd, this.endpoint.waitFd()];
  }

  /** What one peer takes at most is pinned for a moment: too low a limit shows now, and not in an election. */
  #tryPinning(): void {
    try {
      this.endpoint.removeMemory(explained(() => this.endpoint.addMemory(pinnedBytesLeast)));
    } catch (error) {
      this.endpoint.close();
      throw error;
    }
  }

  invite(peer: ReplicaId): PeerCard {
    const old = this.#invited.get(peer);
    if (old !== undefined) this.endpoint.removeMemory(old.landing);
    const landing = explained(() => this.endpoint.addMemory(sessionBytes));
    const session = ++this.#lastSession;
    this.#invited.set(peer, { session, landing });
    const card: FabricCard = {
      transport: 'fabric',
      provider: this.#provider,
      from: this.self,
      to: peer,
      session,
      name: this.#name,
      memoryKey: Buffer.from(this.endpoint.memoryKey(landing)).toString('hex'),
    };
    return { ...card };
  }

  connect(id: ReplicaId, card: PeerCard): void {
    const invitation = this.#invited.get(id);
    if (invitation === undefined || !isFabricCard(card) || card.from !== id || card.to !== this.self)
      throw new TransportError(
        'GAIA_PEER_CARD',
        `The card of replica ${id} is not one that a fabric gives to replica ${this.self}: start all replicas with the same transport, each with an id of its own`,
      );
    if (card.provider !== this.#provider)
      throw new TransportError(
        'GAIA_PEER_CARD',
        `Replica ${id} uses the provider ${card.provider}, replica ${this.self} uses ${this.#provider}: give all the same`,
      );
    const session = this.#openSession(id, invitation, card);
    this.#invited.delete(id);
    this.#drop(id);
    this.#byToken.set(invitation.session, session);
    this.#peers.set(id, session);
    this.#all = [...this.#peers.values()];
  }

  #openSession(id: ReplicaId, { session, landing }: Invitation, card: FabricCard): FabricSession {
    const name = Buffer.from(card.name, 'hex');
    const memoryKey = Buffer.from(card.memoryKey, 'hex');
    try {
      return explained(
        () => new FabricSession(id, this, session, landing, { session: card.session, name, memoryKey }),
      );
    } catch (error) {
      const { syscall } = error as NodeJS.ErrnoException;
      if (syscall !== 'fi_av_insert' && !(error instanceof RangeError)) throw error;
      throw new TransportError(
        'GAIA_PEER_CARD',
        `The card of replica ${id} names no place that ${this.#provider} can reach: see that both use addresses of one family`,
        { cause: error },
      );
    }
  }

  #drop(id: ReplicaId): void {
    const old = this.#peers.get(id);
    if (old !== undefined) this.#end(old);
    this.#peers.delete(id);
    this.#all = [...this.#peers.values()];
  }

  #end(session: FabricSession): void {
    session.close();
    for (const [token, known] of this.#byToken) if (known === session) this.#byToken.delete(token);
  }

  peer(id: ReplicaId): TransportPeer | undefined {
    return this.#peers.get(id);
  }

  peers(): readonly TransportPeer[] {
    return this.#all;
  }

  failed(session: FabricSession): void {
    if (this.#peers.get(session.id) !== session) return;
    this.#peers.delete(session.id);
    this.#all = [...this.#peers.values()];
    this.#failures.set(session.id, session.failure);
    this.#failed.push(session);
    this.#gone.push(session.id);
  }

  failureOf(id: ReplicaId): string | undefined {
    return this.#failures.get(id);
  }

  progress(nowUs: number): void {
    const tokens = this.#tokens;
    const count = this.endpoint.poll(tokens, this.#errors);
    for (let at = 0; at < count; at++) {
      const token = tokens[at] ?? 0;
      const session = this.#byToken.get(Math.floor(token / tokensPerSession));
      session?.finished(token % tokensPerSession, this.#errors[at] ?? 0);
    }
    for (const session of this.#all) session.progress(nowUs);
    if (this.#failed.length === 0) return;
    for (const session of this.#failed) this.#end(session);
    this.#failed = [];
  }

  prepareWait(): void {
    for (const session of this.#all) session.beforeWait();
  }

  get mayWait(): boolean {
    return this.endpoint.mayWait();
  }

  endWait(isReadable: (fd: number) => boolean): void {
    if (isReadable(this.#doorbellFd)) native().drain(this.#doorbellFd);
  }

  takeGone(): ReplicaId | undefined {
    return this.#gone.shift();
  }

  close(): void {
    for (const id of this.#peers.keys()) this.#drop(id);
    this.endpoint.close();
    closeSync(this.#doorbellFd);
    closeSync(this.wakeFd);
  }
}

function isFabricCard(card: PeerCard): card is PeerCard & FabricCard {
  const { transport, provider, session, name, memoryKey } = card as Partial<FabricCard>;
  return (
    transport === 'fabric' &&
    typeof provider === 'string' &&
    typeof session === 'number' &&
    typeof name === 'string' &&
    typeof memoryKey === 'string'
  );
}

/** What libfabric calls it when a provider has no device, or the address is not this machine's. */
const noProvider = new Set(['ENODATA', 'EADDRNOTAVAIL', 'ENODEV']);

function openEndpoint(provider: FabricProvider, address: string): FabricEndpoint {
  const binding = fabric();
  if (binding === undefined) throw libraryMissing();
  try {
    return explained(() => new binding.FabricEndpoint(provider, address));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === 'dlopen') throw libraryMissing(error);
    if (!noProvider.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    throw new TransportError('GAIA_FABRIC_PROVIDER', providerAdvice(provider, address), { cause: error });
  }
}

function libraryMissing(cause?: unknown): TransportError {
  return new TransportError(
    'GAIA_FABRIC_MISSING',
    'The fabric transport lacks libfabric: run "apt-get install libfabric-dev", then "node cli/setup.mjs addon"',
    { cause },
  );
}

function providerAdvice(provider: FabricProvider, address: string): string {
  if (provider.startsWith('tcp'))
    return `No fabric ${provider} at the address ${address}: name an address of this machine ("ip address" lists them)`;
  return `No fabric ${provider} at the address ${address}: it needs an RDMA device on that address ("rdma link" lists them) and the Debian package ibverbs-providers; without one use tcp`;
}

/** RDMA pins memory: say so when the limit is what fails. */
function explained<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (code !== 'ENOMEM' || syscall === 'mmap') throw error;
    throw new TransportError(
      'GAIA_MEMLOCK',
      `The fabric may not pin more memory, this process is limited to ${lockedMemoryLimit()}: raise it ("ulimit -l unlimited", or LimitMEMLOCK=infinity in its systemd unit)`,
      { cause: error },
    );
  }
}

/** Bytes, or "unlimited". */
function lockedMemoryMax(): string | undefined {
  return /^Max locked memory\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
}

function lockedMemoryLimit(): string {
  const limit = lockedMemoryMax();
  return limit === undefined || limit === 'unlimited' ? 'what the system has' : `${limit} bytes`;
}

/** Whether the limit holds for this process: CAP_IPC_LOCK puts it above all. */
function lockedMemoryIsLimited(): boolean {
  const capabilities = /^CapEff:\s+(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  const mayLockAll = (BigInt(`0x${capabilities ?? '0'}`) >> ipcLockCapability) % 2n === 1n;
  return !mayLockAll && lockedMemoryMax() !== 'unlimited';
}
