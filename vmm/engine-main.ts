/**
 * The consensus worker thread: owns the transport, the port and the replica's engine, and turns them in one loop
 * that spins while there is work and blocks in a native wait when there is none. It never returns to the event
 * loop; commands are read from the port between passes.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { native } from '../native/binding.ts';
import type { ReplicaId } from './core/ids.ts';
import { invariant } from './core/invariant.ts';
import type { EngineCommand, EngineReport, EngineStart } from './engine-protocol.ts';
import { GuestPort, PortError } from './io/qemu/port.ts';
import { openTransport } from './io/transport/open.ts';
import type { PeerCard, Transport } from './io/transport/transport.ts';
import { ReadyWatch } from './ready-watch.ts';
import { ReplicaEngine } from './replica-engine.ts';
import { replicaFiles, transportSettings } from './vm-plan.ts';

/** How long the loop looks again before it blocks: above the cost of a wake-up, kind to a machine of two cores. */
const spinUs = 20;

class EngineLoop {
  readonly #start: EngineStart;
  readonly #transport: Transport;
  readonly #engine: ReplicaEngine;
  /** By peer: the process that is connected, or was until it ended. */
  readonly #connected = new Map<ReplicaId, string>();
  readonly #gone = new Set<ReplicaId>();
  /** By peer: the process that was invited last. */
  readonly #invited = new Map<ReplicaId, { readonly process: string; readonly card: PeerCard }>();
  readonly #listenFd: number;
  #port: GuestPort | undefined;
  #attachedNs = 0n;
  #readyWatch: ReadyWatch | undefined;
  #transportFds: readonly number[] = [];
  #fds = new Int32Array(0);
  #ready = new Uint8Array(0);
  #started = false;
  #stopped = false;
  #leader: number | null = null;

  constructor(start: EngineStart) {
    this.#start = start;
    const { plan, self } = start;
    this.#transport = openTransport(self, transportSettings(plan, self));
    this.#engine = new ReplicaEngine(plan, self, this.#transport, {
      event: (event) => report({ type: 'event', event }),
      guestOff: (how) => report({ type: 'guest off', how }),
    });
    this.#listenFd = this.#executes ? native().portListen(this.#files.portSocket) : -1;
    this.#watch();
    report({ type: 'listening', wakeFd: this.#transport.wakeFd });
  }

  get #executes(): boolean {
    return this.#start.tapFd >= 0;
  }

  get #files() {
    const { plan, self } = this.#start;
    const replica = plan.replicas.find(({ id }) => id === self);
    invariant(replica !== undefined, 'a replica is in its own plan');
    return replicaFiles(plan.name, replica.name);
  }

  run(): void {
    let idleSinceUs = nowUs();
    while (!this.#stopped) {
      this.#takeCommands();
      this.#begin();
      const now = nowUs();
      if (this.#pass(now)) {
        idleSinceUs = now;
      } else if (now - idleSinceUs >= spinUs) {
        this.#sleep();
        idleSinceUs = nowUs();
      }
    }
    this.#port?.quit();
    this.#engine.close();
    report({ type: 'stopped' });
  }

  #pass(now: number): boolean {
    this.#transport.progress(now);
    for (let gone = this.#transport.takeGone(); gone !== undefined; gone = this.#transport.takeGone())
      this.#peerGone(gone);
    if (!this.#started) return false;
    const worked = this.#engine.pass(now);
    this.#noteLeader();
    this.#noteReady();
    if (this.#engine.guestLost) this.#dropGuest();
    return worked;
  }

  #peerGone(peer: ReplicaId): void {
    if (this.#gone.has(peer)) return;
    this.#gone.add(peer);
    this.#engine.peerGone(peer);
    report({ type: 'peer gone', id: peer });
  }

  #noteLeader(): void {
    const leader = this.#engine.leader ?? null;
    if (leader === this.#leader) return;
    this.#leader = leader;
    report({ type: 'leader', leader });
  }

  #noteReady(): void {
    if (this.#readyWatch?.look() !== true) return;
    this.#readyWatch = undefined;
    const text = `The guest says "${this.#start.plan.guest.readyMarker ?? ''}"`;
    report({ type: 'event', event: { name: 'guest-ready', text, data: {} } });
    this.#engine.guestReady();
  }

  /** Another QEMU may take its place. */
  #dropGuest(): void {
    if (this.#port === undefined) return;
    this.#readyWatch = undefined;
    this.#port.close();
    this.#port = undefined;
    this.#watch();
    report({ type: 'guest lost', attachedNs: this.#attachedNs });
  }

  /**
   * A new VM's consensus begins when every peer has been reached once and the own guest, if any, is here: so the
   * first executor leads. A replica that comes back begins at once, since others may wait for its vote.
   */
  #begin(): void {
    this.#takeGuest();
    if (this.#started) return;
    if (this.#engine.isNew) {
      if (this.#executes && this.#port === undefined) return;
      if (this.#connected.size < this.#start.plan.replicas.length - 1) return;
    }
    this.#engine.start(nowUs());
    this.#started = true;
  }

  #takeGuest(): void {
    if (!this.#executes || this.#port !== undefined) return;
    const fd = native().portAccept(this.#listenFd);
    if (fd === -1) return;
    this.#attachedNs = process.hrtime.bigint();
    try {
      this.#port = new GuestPort(fd);
      this.#engine.attachGuest(this.#port, this.#start.tapFd);
      const { readyMarker } = this.#start.plan.guest;
      if (readyMarker !== null) this.#readyWatch = new ReadyWatch(this.#port, readyMarker);
    } catch (error) {
      if (!(error instanceof PortError)) throw error;
      // It ended or went wrong while it was greeted: its keeper starts another one.
      this.#port?.close();
      this.#port = undefined;
    }
    this.#watch();
  }

  #takeCommands(): void {
    invariant(parentPort !== null, 'the engine runs in a worker thread');
    for (
      let received = receiveMessageOnPort(parentPort);
      received !== undefined;
      received = receiveMessageOnPort(parentPort)
    ) {
      this.#takeCommand(received.message as EngineCommand);
    }
  }

  #takeCommand(command: EngineCommand): void {
    switch (command.type) {
      case 'invite':
        report({
          type: 'invited',
          request: command.request,
          card: this.#invite(command.id, command.process) ?? null,
        });
        break;
      case 'connect':
        report({ type: 'connected', request: command.request, connected: this.#connect(command) });
        break;
      case 'session lost':
        if (this.#connected.has(command.id)) this.#peerGone(command.id);
        break;
      case 'hand over':
        report({
          type: 'handed over',
          request: command.request,
          refusal: this.#started ? (this.#engine.handOver(command.to) ?? null) : 'starting',
        });
        break;
      case 'status':
        report({ type: 'status', request: command.request, status: this.#engine.status() });
        break;
      case 'stop':
        this.#stopped = true;
    }
  }

  /**
   * The card for one process of a peer; asked again it is the same. Undefined while another process of that peer is
   * connected: its end must be known here first, so that nothing it sent is lost.
   */
  #invite(id: ReplicaId, process: string): PeerCard | undefined {
    const known = this.#invited.get(id);
    if (known?.process === process) return known.card;
    if (this.#connected.has(id) && !this.#gone.has(id)) return undefined;
    const card = this.#transport.invite(id);
    this.#invited.set(id, { process, card });
    return card;
  }

  /** False: that process has ended meanwhile, or its predecessor's end is not known here yet. */
  #connect({ id, process, card }: Extract<EngineCommand, { readonly type: 'connect' }>): boolean {
    if (this.#invite(id, process) === undefined) return false;
    if (this.#connected.get(id) === process) return !this.#gone.has(id);
    try {
      this.#transport.connect(id, card);
    } catch (error) {
      // A system call failed: the process that the card names is no longer there.
      if (!(error instanceof Error) || !('syscall' in error)) throw error;
      return false;
    }
    this.#connected.set(id, process);
    this.#gone.delete(id);
    this.#engine.peerConnected(id);
    return true;
  }

  /** What ends the sleep: the transport, the disk, the guest, and while none is attached a connecting guest. */
  #watch(): void {
    this.#transportFds = this.#transport.waitFds;
    const fds = [...this.#transportFds];
    if (this.#engine.diskFd !== -1) fds.push(this.#engine.diskFd);
    if (this.#port !== undefined) fds.push(this.#port.doorbellFd, this.#port.socketFd);
    else if (this.#listenFd >= 0) fds.push(this.#listenFd);
    this.#fds = Int32Array.from(fds);
    this.#ready = new Uint8Array(fds.length);
  }

  #sleep(): void {
    this.#transport.prepareWait();
    // What arrived before the peers knew that they must ring is found here.
    const now = nowUs();
    if (!this.#pass(now)) {
      if (this.#transport.waitFds !== this.#transportFds) this.#watch();
      const waitUs = this.#started ? this.#engine.waitUs(now) : 100_000;
      // Also where there is no time to wait: a peer's end is found only here.
      if (this.#transport.mayWait) native().waitReadable(this.#fds, this.#ready, waitUs);
    }
    this.#transport.endWait(this.#isReady);
    if (this.#port !== undefined && this.#isReady(this.#port.doorbellFd))
      native().drain(this.#port.doorbellFd);
    if (this.#isReady(this.#engine.diskFd)) this.#engine.diskRang();
    this.#ready.fill(0);
  }

  readonly #isReady = (fd: number): boolean => {
    const at = this.#fds.indexOf(fd);
    return at !== -1 && this.#ready[at] === 1;
  };
}

function nowUs(): number {
  return performance.now() * 1000;
}

function report(message: EngineReport): void {
  parentPort?.postMessage(message);
}

new EngineLoop(workerData as EngineStart).run();
