/**
 * One replica's hot path, in the agent's worker thread: consensus, and the driver that moves the guest, in one loop
 * over polled memory. Each pass takes what came in, decides, and carries out; nothing here waits.
 */
import { ConsensusShell } from './consensus-shell.ts';
import { refusalText } from './core/falcon/control-refusal.ts';
import { writeUint64 } from './core/falcon/record.ts';
import type { LogIndex, ReplicaId } from './core/ids.ts';
import { invariant } from './core/invariant.ts';
import type { EngineEvent, EngineStatus } from './engine-protocol.ts';
import type { DriverSurroundings, GuestDriver } from './guest/guest-driver.ts';
import { GuestExecutor } from './guest/guest-executor.ts';
import { LockstepDriver } from './guest/lockstep-driver.ts';
import { RoundDriver } from './guest/round-driver.ts';
import { MailKind } from './io/mail.ts';
import { PortError, type GuestPort } from './io/qemu/port.ts';
import { Tap } from './io/tap.ts';
import type { Transport, TransportPeer } from './io/transport/transport.ts';
import { replicaFiles, type VmPlan } from './vm-plan.ts';

const messagesPerPassMax = 64;
/** QEMU processes that one agent process may start: an incarnation is never used twice. */
const guestsPerProcessMax = 4096;
/** However little falls due, the loop looks up so often. */
const waitUsMax = 50_000;

export interface EngineFace {
  /** The guest has ended by itself, and stays so. */
  guestOff(how: 'powered off' | 'crashed'): void;
  event(event: EngineEvent): void;
}

export class ReplicaEngine {
  readonly consensus: ConsensusShell;
  readonly #plan: VmPlan;
  readonly #self: ReplicaId;
  readonly #transport: Transport;
  readonly #face: EngineFace;
  /** Peers whose processes have ended: a new driver has to know. */
  readonly #gone = new Set<ReplicaId>();
  readonly #refused = new Set<string>();
  #driver: GuestDriver | undefined;
  /** While it serves: since when nobody else has executed; Infinity: somebody does. */
  #aloneSinceUs = Infinity;
  /** Who may have served last, other than this replica, and when that one was last heard. */
  #formerLeader: ReplicaId | undefined;
  #formerLeaderHeardUs = 0;
  #hangs = false;
  readonly #first: boolean;
  readonly #executes: boolean;
  readonly #processNumber: number;
  /** Of the newest guest here: see `Executor` in core/falcon/executing-set.ts. */
  #incarnation = 0;
  #guestReady = false;
  #guestLost = false;
  #diskFull = false;

  constructor(plan: VmPlan, self: ReplicaId, transport: Transport, face: EngineFace) {
    this.#plan = plan;
    this.#self = self;
    this.#transport = transport;
    this.#face = face;
    const name = plan.replicas.find((replica) => replica.id === self)?.name ?? '';
    const first = plan.replicas.find((replica) => replica.executes)?.id ?? self;
    this.#first = first === self;
    this.#executes = plan.replicas.some((replica) => replica.id === self && replica.executes);
    const { logFolder, hardStateFile } = replicaFiles(plan.name, name);
    this.consensus = new ConsensusShell(
      {
        self,
        voters: plan.replicas.map((replica) => replica.id),
        firstExecutor: first,
        durability: plan.durability,
        clusterId: BigInt(plan.clusterId),
        folder: logFolder,
        hardStateFile,
      },
      transport,
    );
    this.#processNumber = this.consensus.processNumber;
    this.#guestReady = plan.guest.readyMarker === null;
  }

  /** This process is the replica's first: it has no part in anything yet. */
  get isNew(): boolean {
    return this.#processNumber === 1;
  }

  get leader(): ReplicaId | undefined {
    return this.consensus.falcon.leader;
  }

  /** Readable when the disk has finished something; -1: never. */
  get diskFd(): number {
    return this.consensus.storage.eventFd;
  }

  diskRang(): void {
    this.consensus.storage.drain();
  }

  /** Finishes what the disk was given. */
  close(): void {
    this.consensus.storage.close();
  }

  get guestLost(): boolean {
    return this.#guestLost;
  }

  /** This replica's guest: the new VM's first one is fresh and VALID, any other waits for state. */
  attachGuest(port: GuestPort, tapFd: number): void {
    const { falcon } = this.consensus;
    port.welcome();
    const base = (this.#processNumber - 1) * guestsPerProcessMax;
    this.#incarnation = Math.max(base, this.#incarnation) + 1;
    invariant(this.#incarnation <= base + guestsPerProcessMax, 'an incarnation is never used twice');
    const valid = this.#first && this.#incarnation === 1;
    const { mode, transport: link, guest } = this.#plan;
    const exact = mode === 'lockstep';
    const executor = new GuestExecutor(port, falcon, new Tap(tapFd, guest.mac), exact);
    const around = this.#surroundings();
    this.#driver =
      mode === 'lockstep'
        ? new LockstepDriver(around, executor, valid)
        : new RoundDriver(around, executor, { mode, valid, link, scans: guest.scans });
    this.#guestLost = false;
    for (const peer of this.#gone) this.#driver.peerGone(peer);
  }

  #surroundings(): DriverSurroundings {
    const isReady = (): boolean => this.#guestReady;
    const noteReady = (): void => {
      this.#guestReady = true;
    };
    return {
      self: this.#self,
      falcon: this.consensus.falcon,
      transport: this.#transport,
      incarnation: this.#incarnation,
      guestMemoryBytes: this.#plan.guest.memoryBytes,
      get guestReady() {
        return isReady();
      },
      noteGuestReady: noteReady,
      name: (id) => this.#name(id),
      event: (name, text, data = {}) => {
        this.#event(name, text, data);
      },
      serves: (index) => {
        this.#tellServing(index);
      },
      guestOff: (how, index) => {
        this.#tellOff(how, index);
      },
    };
  }

  start(nowUs: number): void {
    this.consensus.falcon.start(nowUs);
  }

  guestReady(): void {
    this.#guestReady = true;
  }

  peerGone(peer: ReplicaId): void {
    const why = this.#transport.failureOf(peer) ?? 'its control connection has ended';
    this.#event('peer-gone', `Replica ${this.#name(peer)} is gone: ${why}`, { replica: peer });
    this.consensus.falcon.peerGone(peer);
    this.#gone.add(peer);
    this.#driver?.peerGone(peer);
  }

  /** Another process of the peer can be reached. */
  peerConnected(peer: ReplicaId): void {
    this.#gone.delete(peer);
    this.#driver?.peerConnected(peer);
  }

  /** Gives the leadership to another executing replica; both go on executing. Returns why not, if so. */
  handOver(to: ReplicaId): string | undefined {
    return this.#driver === undefined ? 'no guest here' : this.#driver.handOver(to);
  }

  /** One pass. True when there was something to do, so that another pass may find more. */
  pass(nowUs: number): boolean {
    const { falcon, storage } = this.consensus;
    falcon.tick(nowUs);
    let worked = this.#guarded(() => this.#takeMail(), true);
    worked = this.consensus.takeInputs() || worked;
    this.consensus.tellCommit();
    worked = this.#guarded(() => this.#moveGuest(nowUs), true) || worked;
    this.#noteAlone(nowUs);
    this.#noteFormerLeader();
    this.#noteDisk();
    // A leader whose guest hangs must not look alive, nor one whose disk does.
    this.#noteHang(this.#driver?.executor.hangs(nowUs) === true);
    if (!this.#hangs && !storage.stalls) falcon.leaderProgress();
    return this.consensus.carryOut() || worked;
  }

  #noteHang(hangs: boolean): void {
    if (hangs && !this.#hangs)
      this.#event('guest-hangs', 'The guest does not come on: another replica is to lead', {});
    this.#hangs = hangs;
  }

  /** Who may have served before this replica: a leader that executes nothing hands its term on, and never did. */
  #noteFormerLeader(): void {
    // It takes over from nobody when it serves again after a term that executed nothing.
    if (this.#driver?.executor.serving === true) this.#formerLeader = undefined;
    const { leader, executingSetCommitted, state } = this.consensus.falcon;
    if (leader === undefined || leader === this.#self) return;
    if (!executingSetCommitted.some(({ replica }) => replica === leader)) return;
    this.#formerLeader = leader;
    this.#formerLeaderHeardUs = state.leaderContactUs;
  }

  /** Whatever needs the guest may find it gone, or its QEMU harmed: then `otherwise` is the result. */
  #guarded<Result>(action: () => Result, otherwise: Result): Result {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof PortError)) throw error;
      this.#loseGuest(error);
      return otherwise;
    }
  }

  #moveGuest(nowUs: number): boolean {
    const { falcon, storage } = this.consensus;
    const driver = this.#driver;
    const rebased = storage.takeRebased();
    if (rebased !== undefined) driver?.logRebased(rebased);
    if (driver === undefined) {
      falcon.applied(falcon.commitIndex);
      return false;
    }
    driver.executor.renewLease();
    return driver.pass(nowUs);
  }

  /** Microseconds until something here falls due without an input. */
  waitUs(nowUs: number): number {
    const { falcon } = this.consensus;
    const guestUs = this.#guarded(() => this.#driver?.waitUs(nowUs) ?? Infinity, 0);
    const waitUs = Math.min(falcon.nextDeadlineUs - nowUs, guestUs);
    return Math.max(0, Math.min(waitUs, waitUsMax));
  }

  status(): EngineStatus {
    const { falcon } = this.consensus;
    const executor = this.#driver?.executor;
    const figures = this.#driver?.figures(this.#nowUs);
    return {
      replica: this.#self,
      role: this.#role(),
      state: this.#state(),
      term: falcon.term,
      leader: falcon.leader ?? null,
      commitIndex: falcon.commitIndex,
      appliedIndex: executor?.appliedIndex ?? 0,
      serving: executor?.serving ?? false,
      guestReady: this.#guestReady,
      executing: falcon.executingSetCommitted.map((member) => member.replica),
      virtualMs: (executor?.virtualNs ?? 0) / 1e6,
      framesDelivered: executor?.framesDelivered ?? 0,
      rounds: figures?.rounds ?? 0,
      verifications: figures?.verifications ?? 0,
      verifiedPages: figures?.verifiedPages ?? 0,
      mismatches: figures?.mismatches ?? 0,
      divergentPages: figures?.divergentPages ?? 0,
      roundsPerSecond: executor?.serving === true ? (figures?.roundsPerSecond ?? 0) : 0,
      aloneForMs: this.#aloneSinceUs === Infinity ? null : (this.#nowUs - this.#aloneSinceUs) / 1000,
      transfer: figures?.transfer ?? null,
      exchange: figures?.exchange ?? null,
    };
  }

  #role(): EngineStatus['role'] {
    const { falcon } = this.consensus;
    if (falcon.role === 'leader') return 'leader';
    if (falcon.role !== 'follower') return 'candidate';
    return this.#executes ? 'backup' : 'standby';
  }

  #state(): EngineStatus['state'] {
    if (this.#guestLost) return 'guest lost';
    if (this.consensus.storage.fullForMs(this.#nowUs) !== undefined) return 'disk full';
    if (this.consensus.falcon.leader === undefined) return 'starting';
    if (this.#driver === undefined) return 'logging';
    return this.#driver.outside ? 'waiting for state' : 'running';
  }

  get #nowUs(): number {
    return this.consensus.falcon.state.nowUs;
  }

  // Mail ---------------------------------------------------------------------------------------------

  #takeMail(): boolean {
    let worked = false;
    for (const peer of this.#transport.peers()) {
      for (let taken = 0; taken < messagesPerPassMax && peer.messages.next(); taken++) {
        const { kind } = peer.messages;
        const bytes = peer.messages.copy();
        peer.messages.consume();
        this.#takeMessage(peer, kind, bytes);
        worked = true;
      }
    }
    return worked;
  }

  /** A message of another cluster or version, or under a name that is in use, is refused; told once each. */
  #takeControl(from: ReplicaId, bytes: Uint8Array): void {
    const refusal = this.consensus.falcon.receive(from, bytes);
    if (refusal === undefined || this.#refused.has(`${from} ${refusal}`)) return;
    this.#refused.add(`${from} ${refusal}`);
    this.#event('message-refused', refusalText(refusal, from), { replica: from, refusal });
  }

  #takeMessage(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    if (kind === MailKind.falcon) this.#takeControl(peer.id, bytes);
    else this.#driver?.receive(peer, kind, bytes);
  }

  // Telling ------------------------------------------------------------------------------------------

  #tellServing(index: LogIndex): void {
    const { falcon } = this.consensus;
    const { term } = falcon;
    const heard = this.#driver?.executor.unagreedFrames ?? 0;
    const and = heard === 0 ? '' : `, and proposes ${heard} frames that the one before it did not`;
    this.#event('serving', `Serves in term ${term} from record ${index}${and}`, { term, index, heard });
    this.#tellFailover();
  }

  #tellOff(how: 'powered off' | 'crashed', index: LogIndex): void {
    const crashed = how === 'crashed';
    this.#event(
      crashed ? 'guest-crashed' : 'guest-off',
      crashed
        ? 'The guest has crashed, on all replicas alike: it stays off'
        : 'The guest has powered itself off: it stays off',
      { index },
    );
    this.#face.guestOff(how);
  }

  /** How long nobody served, as far as this replica can tell: since it last heard of the leader before it. */
  #tellFailover(): void {
    const from = this.#formerLeader;
    // While a new VM's replicas find each other, one may lead that has no guest yet: nobody was served by it.
    const isBeginning =
      this.#incarnation === 1 && this.#first && this.#driver?.figures(this.#nowUs).rounds === 0;
    if (from === undefined || isBeginning) return;
    const { falcon } = this.consensus;
    const gapMs = Math.round((this.#nowUs - this.#formerLeaderHeardUs) / 1000);
    this.#event('failover', `Took over from ${this.#name(from)}, which was last heard ${gapMs} ms ago`, {
      from,
      to: this.#self,
      term: falcon.term,
      gapMs,
    });
  }

  /** Whether the state of the guest that serves is held anywhere else. */
  #noteAlone(nowUs: number): void {
    const { executingSetCommitted } = this.consensus.falcon;
    const alone = this.#driver?.executor.serving === true && executingSetCommitted.length < 2;
    if (!alone) this.#aloneSinceUs = Infinity;
    else if (this.#aloneSinceUs === Infinity) this.#aloneSinceUs = nowUs;
  }

  #noteDisk(): void {
    const { storage } = this.consensus;
    const full = storage.fullForMs(this.#nowUs) !== undefined;
    if (full !== this.#diskFull) {
      this.#diskFull = full;
      if (full) this.#event('disk-full', 'The disk has no space for the log: it waits for some', {});
      else this.#event('disk-room', 'The disk has space for the log again', {});
    }
    const tookMs = storage.takeSlowMs();
    if (tookMs === undefined) return;
    this.#event('disk-slow', `The disk of the log took ${tookMs} ms for a write`, { tookMs });
  }

  // Loss ---------------------------------------------------------------------------------------------

  #loseGuest(error: Error): void {
    this.#event('guest-lost', `The guest is lost: ${error.message}`, {});
    this.#guestLost = true;
    this.#driver = undefined;
    this.consensus.falcon.setExecutor(this.#incarnation, false);
    this.#tellLoss();
  }

  /** Else a leader waits for this guest until it has stood still for too long. */
  #tellLoss(): void {
    const { leader } = this.consensus.falcon;
    if (leader === undefined || leader === this.#self) return;
    const word = new DataView(new ArrayBuffer(8));
    writeUint64(word, 0, this.#incarnation);
    this.#transport.peer(leader)?.send(MailKind.guestLost, new Uint8Array(word.buffer));
  }

  #name(id: ReplicaId): string {
    return this.#plan.replicas.find((replica) => replica.id === id)?.name ?? String(id);
  }

  #event(name: string, text: string, data: Readonly<Record<string, number | string>>): void {
    this.#face.event({ name, text, data });
  }
}
