/**
 * One replica's agent: starts its QEMU, runs its engine in a worker thread, answers the control API. Guarantees:
 * what it starts ends with it in good order; if it is killed, QEMU stops its guest by itself.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { native } from '../native/binding.ts';
import { ControlServer, controlRequest } from './io/control-api.ts';
import type {
  EngineCommand,
  EngineEvent,
  EngineReport,
  EngineStart,
  EngineStatus,
} from './engine-protocol.ts';
import { joinBridge } from './io/bridge.ts';
import { machineArguments } from './io/qemu/profile.ts';
import type { PeerCard } from './io/transport/transport.ts';
import { replicaFiles, type ReplicaPlan, type VmPlan } from './vm-plan.ts';

const peerRetryMs = 50;
const eventsKeptMax = 1000;
/** QEMU's file descriptor of the tap: the first behind stdin, stdout and stderr. */
const qemuTapFd = 3;

export interface AgentStatus extends EngineStatus {
  readonly name: string;
  readonly agentPid: number;
  readonly qemuPid: number | null;
}

export interface AgentEvent extends EngineEvent {
  readonly number: number;
  readonly time: string;
}

export class Agent {
  readonly #plan: VmPlan;
  readonly #replica: ReplicaPlan;
  readonly #files: ReturnType<typeof replicaFiles>;
  readonly #events: AgentEvent[] = [];
  readonly #statusRequests = new Map<number, (status: EngineStatus) => void>();
  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => undefined;
  #worker: Worker | undefined;
  #qemu: ChildProcess | undefined;
  #cards: Readonly<Record<number, PeerCard>> = {};
  #api: ControlServer | undefined;
  #statusNumber = 0;
  #eventNumber = 0;
  #wakeFd = -1;

  constructor(plan: VmPlan, replica: ReplicaPlan) {
    this.#plan = plan;
    this.#replica = replica;
    this.#files = replicaFiles(plan.name, replica.name);
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Runs until it is told to stop. */
  async run(): Promise<void> {
    mkdirSync(this.#files.runFolder, { recursive: true, mode: 0o700 });
    mkdirSync(this.#files.logFolder, { recursive: true, mode: 0o700 });
    writeFileSync(this.#files.agentPidFile, `${process.pid}\n`);
    const tapFd = this.#replica.executes ? await this.#openTap() : -1;
    this.#api = new ControlServer(this.#files.agentSocket, {
      'GET /v1/address': () => Promise.resolve(this.#cards),
      'GET /v1/status': () => this.#status(),
      'GET /v1/events': () => Promise.resolve(this.#events),
      'POST /v1/stop': () => {
        this.#command({ type: 'stop' });
        return Promise.resolve({});
      },
    });
    await this.#api.listen();
    await this.#startEngine({ plan: this.#plan, self: this.#replica.id, tapFd });
    if (tapFd >= 0) this.#startQemu(tapFd);
    await Promise.all(
      this.#plan.replicas.filter(({ id }) => id !== this.#replica.id).map((peer) => this.#meet(peer)),
    );
    await this.#closed;
    this.#api.close();
    rmSync(this.#files.runFolder, { recursive: true, force: true });
  }

  async #openTap(): Promise<number> {
    const { tap } = this.#replica;
    const fd = native().tapOpen(tap, { vnetHeader: false });
    // Also a backup's carrier is up: it sends nothing and discards what it reads, but a port that first had to come
    // up at a takeover would lose the first replies. Only a deposed leader takes its carrier down.
    native().tapCarrier(fd, true);
    await joinBridge(tap, this.#plan.network.bridge);
    return fd;
  }

  #startEngine(start: EngineStart): Promise<void> {
    const worker = new Worker(new URL('./engine-main.js', import.meta.url), {
      workerData: start,
      trackUnmanagedFds: false,
    });
    this.#worker = worker;
    worker.on('error', (error) => {
      this.#log(`engine failed: ${error.stack ?? error.message}`);
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
      case 'reachable':
        this.#cards = message.cards;
        this.#wakeFd = message.wakeFd;
        break;
      case 'event':
        this.#event(message.event);
        break;
      case 'status':
        this.#statusRequests.get(message.request)?.(message.status);
        this.#statusRequests.delete(message.request);
        break;
      case 'stopped':
        this.#resolveClosed();
        break;
      case 'listening':
    }
  }

  #command(command: EngineCommand): void {
    this.#worker?.postMessage(command);
    if (this.#wakeFd >= 0) native().ring(this.#wakeFd, 'pipe');
  }

  async #status(): Promise<AgentStatus> {
    const request = ++this.#statusNumber;
    const status = await new Promise<EngineStatus>((resolve) => {
      this.#statusRequests.set(request, resolve);
      this.#command({ type: 'status', request });
    });
    return {
      ...status,
      name: this.#replica.name,
      agentPid: process.pid,
      qemuPid: this.#qemu?.pid ?? null,
    };
  }

  #startQemu(tapFd: number): void {
    const { guest, network, qemu } = this.#plan;
    const [guestAddress] = network.guestAddress.split('/');
    const [hostAddress] = network.hostAddress.split('/');
    const qemuArguments = [
      ...machineArguments({
        machine: guest.machine,
        lockstep: true,
        memoryBytes: guest.memoryBytes,
        vcpus: 1,
        kernel: guest.kernel,
        initrd: guest.initrd,
        appendExtra: [
          ...guest.kernelArguments,
          `gaia.ip=${network.guestAddress}`,
          `gaia.gw=${hostAddress ?? ''}`,
        ],
        mac: guest.mac,
        tapFd: qemuTapFd,
        rtcBase: guest.rtcBase,
        serialFile: this.#files.serialFile,
      }),
      '-S',
      '-no-reboot',
      ...['-name', `gaia-${this.#plan.name}-${this.#replica.name}`],
      ...['-object', `gaia-port,id=port0,path=${this.#files.portSocket},netdev=net0`],
    ];
    const log = openSync(this.#files.qemuLogFile, 'a', 0o600);
    const child = spawn(qemu, qemuArguments, { stdio: ['ignore', log, log, tapFd] });
    closeSync(log);
    this.#qemu = child;
    writeFileSync(this.#files.qemuPidFile, `${child.pid ?? 0}\n`);
    child.on('error', (error) => this.#event({ name: 'qemu-failed', text: error.message, data: {} }));
    child.on('exit', (code, signal) => {
      this.#event({
        name: 'qemu-ended',
        text: `QEMU ended with ${signal ?? `exit code ${code ?? -1}`}, the guest at ${guestAddress ?? ''}`,
        data: {},
      });
    });
    this.#watchSerial();
  }

  /** The image says by a line on the serial console when its service answers. */
  #watchSerial(): void {
    const { readyMarker } = this.#plan.guest;
    if (readyMarker === null) return;
    const look = () => {
      let text: string;
      try {
        text = readFileSync(this.#files.serialFile, 'utf8');
      } catch {
        return; // QEMU has not made it yet.
      }
      if (text.includes(readyMarker)) {
        clearInterval(timer);
        this.#event({ name: 'guest-ready', text: `The guest says "${readyMarker}"`, data: {} });
        this.#command({ type: 'guest ready' });
      }
    };
    const timer = setInterval(look, 50);
    timer.unref();
  }

  /** Learns how a peer is reached, as soon as its agent answers. */
  async #meet(peer: ReplicaPlan): Promise<void> {
    const socket = replicaFiles(this.#plan.name, peer.name).agentSocket;
    for (;;) {
      try {
        const cards = (await controlRequest(socket, 'GET', '/v1/address', 1000)) as Record<number, PeerCard>;
        const card = cards[this.#replica.id];
        if (card !== undefined) {
          this.#command({ type: 'peer', id: peer.id, card });
          return;
        }
      } catch {
        // Not up yet.
      }
      await new Promise((resolve) => setTimeout(resolve, peerRetryMs));
    }
  }

  #event(event: EngineEvent): void {
    const numbered = { ...event, number: ++this.#eventNumber, time: new Date().toISOString() };
    this.#events.push(numbered);
    if (this.#events.length > eventsKeptMax) this.#events.shift();
    this.#log(`${event.name}: ${event.text}`);
  }

  #log(text: string): void {
    appendFileSync(this.#files.agentLogFile, `${new Date().toISOString()} ${text}\n`);
  }
}
