/**
 * The consensus worker thread: owns the transport, the port and the replica's engine, and turns them in one loop
 * that spins while there is work and blocks in a native wait when there is none. It never returns to the event
 * loop; commands are read from the port between passes.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { native } from '../native/binding.ts';
import { invariant } from './core/invariant.ts';
import type { EngineCommand, EngineReport, EngineStart } from './engine-protocol.ts';
import { GuestPort } from './io/qemu/port.ts';
import { ShmTransport } from './io/transport/shm.ts';
import type { PeerCard, Transport } from './io/transport/transport.ts';
import { ReplicaEngine } from './replica-engine.ts';
import { replicaFiles } from './vm-plan.ts';

/** How long the loop looks again before it blocks: above the cost of a wake-up, kind to a machine of two cores. */
const spinUs = 20;

class EngineLoop {
  readonly #start: EngineStart;
  readonly #transport: Transport;
  readonly #engine: ReplicaEngine;
  readonly #connected = new Set<number>();
  readonly #listenFd: number;
  #port: GuestPort | undefined;
  #transportFds: readonly number[] = [];
  #fds = new Int32Array(0);
  #ready = new Uint8Array(0);
  #started = false;
  #stopped = false;

  constructor(start: EngineStart) {
    this.#start = start;
    const { plan, self } = start;
    const peers = plan.replicas.map((replica) => replica.id).filter((id) => id !== self);
    this.#transport = new ShmTransport(self);
    this.#engine = new ReplicaEngine(plan, self, this.#transport, {
      event: (event) => report({ type: 'event', event }),
    });
    this.#listenFd = this.#executes ? native().portListen(this.#files.portSocket) : -1;
    this.#watch();
    const cards: Record<number, PeerCard> = {};
    for (const peer of peers) cards[peer] = this.#transport.invite(peer);
    report({ type: 'reachable', cards, wakeFd: this.#transport.wakeFd });
    report({ type: 'listening' });
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
    report({ type: 'stopped' });
  }

  #pass(now: number): boolean {
    this.#transport.progress(now);
    for (let gone = this.#transport.takeGone(); gone !== undefined; gone = this.#transport.takeGone())
      this.#engine.peerGone(gone);
    return this.#started && this.#engine.pass(now);
  }

  /** Consensus begins when every peer has been reached once and the own guest, if any, is here. */
  #begin(): void {
    if (this.#started) return;
    if (this.#executes && this.#port === undefined) {
      const fd = native().portAccept(this.#listenFd);
      if (fd === -1) return;
      this.#port = new GuestPort(fd);
      const first = this.#start.plan.replicas.find((replica) => replica.executes)?.id;
      this.#engine.attachGuest(this.#port, this.#start.tapFd, first === this.#start.self);
      this.#watch();
    }
    if (this.#connected.size < this.#start.plan.replicas.length - 1) return;
    this.#engine.start(nowUs());
    this.#started = true;
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
      case 'peer':
        this.#transport.connect(command.id, command.card);
        this.#connected.add(command.id);
        break;
      case 'guest ready':
        this.#engine.guestReady();
        break;
      case 'status':
        report({ type: 'status', request: command.request, status: this.#engine.status() });
        break;
      case 'stop':
        this.#stopped = true;
    }
  }

  /** What ends the sleep: the transport, the guest, and while none is attached a connecting guest. */
  #watch(): void {
    this.#transportFds = this.#transport.waitFds;
    const fds = [...this.#transportFds];
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
      if (waitUs > 0 && this.#transport.mayWait) native().waitReadable(this.#fds, this.#ready, waitUs);
    }
    this.#transport.endWait(this.#isReady);
    if (this.#port !== undefined && this.#isReady(this.#port.doorbellFd))
      native().drain(this.#port.doorbellFd);
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
