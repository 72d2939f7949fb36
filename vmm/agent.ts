/**
 * One replica's agent: starts its QEMU, runs its engine in a worker thread, answers the control API. Guarantees:
 * what it starts ends with it in good order; if it is killed, QEMU stops its guest by itself.
 */
import { randomUUID } from 'node:crypto';
import { appendFileSync, mkdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { native } from '../native/binding.ts';
import type { AgentStatus, Failover } from './agent-status.ts';
import { Announcer } from './announcer.ts';
import { explainError, GaiaError } from './core/errors.ts';
import type { ReplicaId } from './core/ids.ts';
import type { EngineCommand, EngineEvent, EngineReport, EngineStart } from './engine-protocol.ts';
import type { Question } from './io/transport/control-line.ts';
import type { PeerCard } from './io/transport/transport.ts';
import { floodPort, joinBridge } from './io/bridge.ts';
import { ControlServer, PlainText } from './io/control-api.ts';
import { takeLock } from './io/lock-file.ts';
import { FabricMeeting } from './fabric-meeting.ts';
import { EventLog, type AgentEvent } from './event-log.ts';
import { metricsContentType, metricsText } from './metrics.ts';
import { PeerMeeting, type Invitation } from './peer-meeting.ts';
import type { PeerStates } from './peer-states.ts';
import { factsRefusal } from './shared-facts.ts';
import { endOrphan, QemuKeeper } from './qemu-keeper.ts';
import { askReplica } from './remote-replicas.ts';
import { Revival } from './revival.ts';
import {
  isLocal,
  offFile,
  replicaFiles,
  vmIsStopping,
  vmOff,
  type ReplicaPlan,
  type VmPlan,
} from './vm-plan.ts';

const offDelayMs = 1000;
/** The engine has told it to end. */
const qemuEndsMs = 2000;
/** The answer to whoever stops the VM leaves first. */
const stopDelayMs = 100;

class AgentRunsError extends GaiaError {
  constructor(vm: string, replica: string, pid: number) {
    super(
      'GAIA_AGENT_RUNS',
      `Replica ${replica} of VM ${vm} runs already, as process ${pid}: end that one first`,
    );
  }
}

/** Of an agent that is the only one of its VM on this host. */
export interface HostFace {
  readonly states: PeerStates;
  /** Hears each line of the agent's log. */
  log(line: string): void;
}

type Answer = Extract<EngineReport, { readonly request: number }>;

export class Agent {
  readonly #plan: VmPlan;
  readonly #replica: ReplicaPlan;
  readonly #files: ReturnType<typeof replicaFiles>;
  readonly #process = randomUUID();
  readonly #events: EventLog;
  readonly #requests = new Map<number, (answer: Answer) => void>();
  /** On one machine by the agents' sockets, over a fabric by control connections. */
  readonly #meeting: PeerMeeting | FabricMeeting;
  readonly #revival: Revival;
  readonly #host: HostFace | undefined;
  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => undefined;
  #worker: Worker | undefined;
  #qemu: QemuKeeper | undefined;
  #announcer: Announcer | undefined;
  #requestNumber = 0;
  #wakeFd = -1;
  #vmEnds = false;

  constructor(plan: VmPlan, replica: ReplicaPlan, host?: HostFace) {
    this.#plan = plan;
    this.#replica = replica;
    this.#host = host;
    this.#files = replicaFiles(plan.name, replica.name);
    this.#events = new EventLog(this.#files.eventsFile);
    const event = (happened: EngineEvent) => this.#event(happened);
    this.#meeting =
      plan.transport === 'fabric'
        ? this.#meetOverFabric()
        : new PeerMeeting(plan.name, replica, this.#process, {
            connect: (peer, invitation) => this.#connect(peer, invitation),
          });
    this.#revival = new Revival(plan, replica, { event, off: () => this.#stop() });
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Another host has ended the whole VM: nothing of it is wanted any more. */
  get vmEnds(): boolean {
    return this.#vmEnds;
  }

  /** Runs until it is told to stop; at once to its end where another agent of this replica runs. */
  async run(): Promise<void> {
    mkdirSync(this.#files.runFolder, { recursive: true, mode: 0o700 });
    mkdirSync(this.#files.logFolder, { recursive: true, mode: 0o700 });
    const lock = takeLock(this.#files.lockFile);
    if ('holderPid' in lock) {
      if (this.#host !== undefined)
        throw new AgentRunsError(this.#plan.name, this.#replica.name, lock.holderPid);
      this.#log(`ends at once: the agent with pid ${lock.holderPid} runs already`);
      return;
    }
    writeFileSync(this.#files.agentPidFile, `${process.pid}\n`, { mode: 0o600 });
    // Looked at after the pid is there to be found: who stops the VM sees one of the two.
    if (!vmIsStopping(this.#plan.name)) {
      this.#beginAnew();
      await this.#runLocked();
    }
    rmSync(this.#files.runFolder, { recursive: true, force: true });
    lock.release();
  }

  /** Until all hosts have met, nothing was promised: this process is as good as the replica's first. */
  #beginAnew(): void {
    if (this.#host === undefined || this.#host.states.begun) return;
    rmSync(this.#files.logFolder, { recursive: true, force: true });
    mkdirSync(this.#files.logFolder, { mode: 0o700 });
  }

  async #runLocked(): Promise<void> {
    if (await endOrphan(this.#plan.name, this.#replica.name))
      this.#log('ended the QEMU that an earlier agent left');
    const tapFd = this.#replica.executes ? await this.#openTap() : -1;
    await this.#startEngine({ plan: this.#plan, self: this.#replica.id, process: this.#process, tapFd });
    const api = this.#control();
    try {
      await api.listen();
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#stop());
      await this.#beginMeeting();
      if (tapFd >= 0) this.#startQemu(tapFd);
      await this.#closed;
      await this.#qemu?.gone(qemuEndsMs);
    } catch (error) {
      await this.#worker?.terminate();
      throw error;
    } finally {
      api.close();
    }
  }

  async #beginMeeting(): Promise<void> {
    if (this.#meeting instanceof FabricMeeting) await this.#meeting.open();
    else for (const peer of this.#plan.replicas) if (peer.id !== this.#replica.id) this.#meet(peer);
  }

  #control(): ControlServer {
    return new ControlServer(this.#files.agentSocket, {
      'GET /v1/card': (query) => this.#invite(query),
      'GET /v1/status': () => this.#status(),
      'GET /v1/events': () => Promise.resolve(this.#events.events),
      'GET /metrics': async () =>
        new PlainText(metricsText(this.#plan.name, await this.#status()), metricsContentType),
      'POST /v1/hand-over': (query) => this.#handOver(query),
      'POST /v1/stop': () => {
        this.#stop();
        return Promise.resolve({});
      },
    });
  }

  /** The others have to learn of it, too: a moment later this agent ends as they do. */
  #guestOff(how: string): void {
    this.#noteOff(how);
    // A standby on another host executes nothing, so it is told.
    const elsewhere = this.#plan.replicas.filter(({ name }) => !isLocal(this.#plan, name));
    for (const { name } of elsewhere)
      askReplica(this.#plan, name, 'guest off', { how }).catch((error: unknown) => {
        this.#log(`${name} was not told: ${error instanceof Error ? error.message : String(error)}`);
      });
  }

  #noteOff(how: string): void {
    if (vmOff(this.#plan.name) !== undefined) return;
    writeFileSync(offFile(this.#plan.name), `${new Date().toISOString()}\t${how}\n`);
    setTimeout(() => this.#stop(), offDelayMs);
  }

  /** On a network that is not ours, switches learn where the guest is served from now. */
  #announce(event: string): void {
    if (event === 'serving') this.#announcer?.begin();
    else if (event === 'serving-ended') this.#announcer?.end();
  }

  #stop(): void {
    this.#announcer?.end();
    this.#meeting.end();
    this.#revival.end();
    this.#qemu?.end();
    this.#command({ type: 'stop' });
  }

  async #openTap(): Promise<number> {
    const { tap } = this.#replica;
    const fd = native().tapOpen(tap, { vnetHeader: false });
    // Also a backup's carrier is up: it sends nothing and discards what it reads, but a port that first had to come
    // up at a takeover would lose the first replies. Only a deposed leader takes its carrier down.
    native().tapCarrier(fd, true);
    await joinBridge(tap, this.#plan.network.bridge);
    // Where each replica's port is on a host of its own, the network has to learn where the guest is.
    if (this.#plan.hosts !== undefined)
      this.#announcer = new Announcer(this.#plan.guest.mac, (frame) => writeSync(fd, frame));
    else await floodPort(tap);
    return fd;
  }

  #startEngine(start: EngineStart): Promise<void> {
    const worker = new Worker(new URL('./engine-main.js', import.meta.url), {
      workerData: start,
      trackUnmanagedFds: false,
    });
    this.#worker = worker;
    worker.on('error', (error) => {
      this.#log(`engine failed: ${explainError(error)}`);
      process.exit(1);
    });
    return new Promise((resolve) => {
      worker.on('message', (message: EngineReport) => {
        this.#takeReport(message);
        if (message.type === 'listening') resolve();
      });
    });
  }

  #takeReport(message: EngineReport): void {
    switch (message.type) {
      case 'listening':
        this.#wakeFd = message.wakeFd;
        break;
      case 'event':
        this.#event(message.event);
        this.#announce(message.event.name);
        break;
      case 'peer gone':
        this.#peerGone(message.id);
        break;
      case 'leader':
        this.#revival.leaderIs(message.leader);
        break;
      case 'guest off':
        this.#guestOff(message.how);
        break;
      case 'guest lost':
        this.#qemu?.lost(message.attachedNs);
        break;
      case 'stopped':
        this.#resolveClosed();
        break;
      default:
        this.#requests.get(message.request)?.(message);
        this.#requests.delete(message.request);
    }
  }

  #command(command: EngineCommand): void {
    this.#worker?.postMessage(command);
    if (this.#wakeFd >= 0) native().ring(this.#wakeFd, 'pipe');
  }

  /** Sends a command that the engine answers with a report of this type, and waits for it. */
  #ask<Type extends Answer['type']>(
    type: Type,
    command: (request: number) => EngineCommand,
  ): Promise<Extract<Answer, { readonly type: Type }>> {
    const request = ++this.#requestNumber;
    return new Promise((resolve, reject) => {
      this.#requests.set(request, (answer) => {
        if (isOfType(answer, type)) resolve(answer);
        else reject(new Error(`The engine answered "${type}" with "${answer.type}"`));
      });
      this.#command(command(request));
    });
  }

  async #status(): Promise<AgentStatus> {
    const { status } = await this.#ask('status', (request) => ({ type: 'status', request }));
    return {
      ...status,
      name: this.#replica.name,
      agentPid: process.pid,
      qemuPid: this.#qemu?.pid ?? null,
      qemuStarts: this.#qemu?.starts ?? 0,
      missing: this.#revival.missing(),
      failover: failoverOf(this.#events.last('failover')),
    };
  }

  #startQemu(tapFd: number): void {
    this.#qemu = new QemuKeeper(this.#plan, this.#replica, tapFd, {
      event: (event) => this.#event(event),
    });
    this.#qemu.start();
  }

  // Peers --------------------------------------------------------------------------------------------

  #peer(id: number): ReplicaPlan | undefined {
    return this.#plan.replicas.find((replica) => replica.id === id && id !== this.#replica.id);
  }

  /** A peer's agent asks how exactly its process reaches this one. */
  async #invite(query: URLSearchParams): Promise<Invitation> {
    const peer = this.#peer(Number(query.get('replica') ?? -1));
    const process = query.get('process') ?? '';
    if (peer === undefined || !/^[0-9a-f-]{36}$/.test(process))
      throw new GaiaError('GAIA_CARD', 'A card is asked for with ?replica=NUMBER&process=UUID');
    return { process: this.#process, card: await this.#card(peer, process) };
  }

  async #card(peer: ReplicaPlan, process: string): Promise<PeerCard | null> {
    const { card } = await this.#ask('invited', (request) => ({
      type: 'invite',
      request,
      id: peer.id,
      process,
    }));
    return card;
  }

  #meetOverFabric(): FabricMeeting {
    return new FabricMeeting(this.#plan, this.#replica, this.#host?.states, {
      invite: (peer, session) => this.#card(peer, session),
      connect: (peer, session, card) => this.#connect(peer, { process: session, card }),
      lost: ({ id }) => {
        this.#command({ type: 'session lost', id });
      },
      refused: ({ code, message }) => {
        this.#event({ name: 'peer-refused', text: message, data: { code } });
      },
      answer: (question) => this.#answer(question),
    });
  }

  /** What a gaia-vm on another host asks over the control connection. */
  async #answer({ vm, ask, words }: Question): Promise<unknown> {
    const { name, hosts, clusterId, guest } = this.#plan;
    if (vm !== name || hosts === undefined)
      throw new GaiaError('GAIA_PEER_VM', `A replica of VM ${name} runs here, not of ${vm}`);
    switch (ask) {
      case 'status':
        return this.#status();
      case 'events':
        return this.#events.events;
      case 'hand over':
        return this.#handOver(new URLSearchParams(words));
      case 'origin': {
        const own = { name: this.#replica.name, facts: hosts.shared };
        const refusal = factsRefusal(own, { name: words['replica'] ?? '?', facts: words });
        if (refusal !== undefined) throw new GaiaError(refusal.code, refusal.text);
        return { clusterId, rtcBase: guest.rtcBase };
      }
      case 'guest off':
        this.#noteOff(words['how'] ?? '');
        return {};
      case 'stop':
        this.#event({ name: 'vm-stopped', text: 'The VM is ended from another host', data: {} });
        this.#vmEnds = true;
        setTimeout(() => this.#stop(), stopDelayMs);
        return {};
      default:
        throw new GaiaError('GAIA_PEER_QUESTION', `Replica ${this.#replica.name} does not know "${ask}"`);
    }
  }

  async #handOver(query: URLSearchParams): Promise<{ readonly refusal: string | null }> {
    const peer = this.#peer(Number(query.get('to') ?? -1));
    if (peer === undefined) return { refusal: 'no such replica' };
    const { refusal } = await this.#ask('handed over', (request) => ({
      type: 'hand over',
      request,
      to: peer.id,
    }));
    return { refusal };
  }

  async #connect(peer: ReplicaPlan, { process, card }: Invitation): Promise<boolean> {
    if (card === null) return false;
    const { connected } = await this.#ask('connected', (request) => ({
      type: 'connect',
      request,
      id: peer.id,
      process,
      card,
    }));
    if (connected) this.#revival.peerConnected(peer);
    return connected;
  }

  #meet(peer: ReplicaPlan): void {
    if (this.#meeting instanceof FabricMeeting) {
      this.#meeting.drop(peer.id);
      return;
    }
    this.#meeting.meet(peer).catch((error: unknown) => {
      this.#log(`peer ${peer.name} cannot be met: ${error instanceof Error ? error.message : String(error)}`);
      process.exit(1);
    });
  }

  #peerGone(id: ReplicaId): void {
    const peer = this.#peer(id);
    if (peer === undefined) return;
    this.#revival.peerGone(peer);
    this.#meet(peer);
  }

  #event(event: EngineEvent): void {
    this.#events.add(event);
    this.#log(`${event.name}: ${event.text}`);
  }

  #log(text: string): void {
    appendFileSync(this.#files.agentLogFile, `${new Date().toISOString()} ${text}\n`);
    this.#host?.log(text);
  }
}

function isOfType<Type extends Answer['type']>(
  answer: Answer,
  type: Type,
): answer is Extract<Answer, { readonly type: Type }> {
  return answer.type === type;
}

function failoverOf(event: AgentEvent | undefined): Failover | null {
  if (event === undefined) return null;
  const { from, to, term, gapMs } = event.data;
  return { time: event.time, from: Number(from), to: Number(to), term: Number(term), gapMs: Number(gapMs) };
}
