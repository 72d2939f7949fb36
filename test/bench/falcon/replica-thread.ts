/**
 * A thread that steps one or more replicas. The one with replica 1 measures. A spinning thread never sleeps; a
 * blocking one looks again for 20 µs, as the agents do, and then waits in poll.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { native } from '../../../native/binding.ts';
import type { ReplicaId } from '../../../vmm/core/ids.ts';
import type { PeerCard } from '../../../vmm/io/transport/transport.ts';
import { nowUs, ReplicaNode, type NodeSettings } from './replica-node.ts';

export interface ThreadStart {
  readonly nodes: readonly NodeSettings[];
  readonly waiting: 'spinning' | 'blocking';
}

/** From the bench to the thread. */
export type ThreadCommand =
  | { readonly do: 'connect'; readonly cards: Readonly<Record<number, Readonly<Record<number, PeerCard>>>> }
  | {
      readonly do: 'latency';
      readonly payloadBytes: number;
      readonly samples: number;
      readonly warmup: number;
    }
  | {
      readonly do: 'throughput';
      readonly payloadBytes: number;
      readonly seconds: number;
      readonly window: number;
    }
  | { readonly do: 'stop' };

/** From the thread to the bench. */
export type ThreadReport =
  | { readonly cards: Readonly<Record<number, Readonly<Record<number, PeerCard>>>> }
  | { readonly leads: true }
  | { readonly latenciesUs: Float64Array }
  | { readonly recordsPerSecond: number }
  | { readonly stopped: true };

const spinUs = 20;
const waitMsMax = 5;

const { nodes: settings, waiting } = workerData as ThreadStart;
const voters = settings[0]?.voters ?? 0;
const nodes = settings.map((node) => new ReplicaNode(node));
const leader = nodes.find((node) => node.id === 1);
const state = { stopped: false };
let idleSinceUs = nowUs();

function report(message: ThreadReport): void {
  parentPort?.postMessage(message);
}

function step(): void {
  let worked = false;
  for (const node of nodes) worked = node.pass() || worked;
  const now = nowUs();
  if (worked) idleSinceUs = now;
  else if (waiting === 'blocking' && now - idleSinceUs >= spinUs) sleep();
}

function sleep(): void {
  for (const { transport } of nodes) transport.prepareWait();
  let worked = false;
  for (const node of nodes) worked = node.pass() || worked;
  const fds = nodes
    .flatMap(({ transport, shell }) => [...transport.waitFds, shell.storage.eventFd])
    .filter(isFd);
  const ready = new Uint8Array(fds.length);
  if (!worked && nodes.every(({ transport }) => transport.mayWait))
    native().waitReadable(Int32Array.from(fds), ready, waitMsMax * 1000);
  for (const { transport, shell } of nodes) {
    transport.endWait((fd) => ready[fds.indexOf(fd)] === 1);
    shell.storage.drain();
  }
  idleSinceUs = nowUs();
}

function isFd(fd: number | undefined): fd is number {
  return fd !== undefined && fd >= 0;
}

function latencies(node: ReplicaNode, payloadBytes: number, samples: number, warmup: number): Float64Array {
  const payload = new Uint8Array(payloadBytes).fill(0x5a);
  const times = new Float64Array(samples);
  const { falcon } = node.shell;
  for (let sample = -warmup; sample < samples; sample++) {
    const began = nowUs();
    let index = node.propose(payload);
    while (index === 0) {
      step();
      index = node.propose(payload);
    }
    while (falcon.commitIndex < index) step();
    if (sample >= 0) times[sample] = nowUs() - began;
  }
  return times;
}

/** As many records on their way at once as `window` says. */
function throughput(node: ReplicaNode, payloadBytes: number, seconds: number, window: number): number {
  const payload = new Uint8Array(payloadBytes).fill(0x5a);
  const { falcon } = node.shell;
  const firstIndex = falcon.commitIndex;
  const began = nowUs();
  const untilUs = began + seconds * 1e6;
  while (nowUs() < untilUs) {
    while (falcon.log.lastIndex - falcon.commitIndex < window && node.propose(payload) !== 0);
    step();
  }
  return ((falcon.commitIndex - firstIndex) * 1e6) / (nowUs() - began);
}

function take(command: ThreadCommand): void {
  switch (command.do) {
    case 'connect':
      for (const node of nodes) {
        for (const [from, cards] of Object.entries(command.cards)) {
          const card = cards[node.id];
          if (card !== undefined) node.transport.connect(Number(from) as ReplicaId, card);
        }
        node.shell.falcon.start(nowUs());
      }
      if (leader === undefined) break;
      while (!leader.leads) step();
      report({ leads: true });
      break;
    case 'latency':
      if (leader === undefined) break;
      report({ latenciesUs: latencies(leader, command.payloadBytes, command.samples, command.warmup) });
      break;
    case 'throughput':
      if (leader === undefined) break;
      report({
        recordsPerSecond: throughput(leader, command.payloadBytes, command.seconds, command.window),
      });
      break;
    case 'stop':
      state.stopped = true;
  }
}

report({ cards: Object.fromEntries(nodes.map((node) => [node.id, node.cards(voters)])) });
while (!state.stopped) {
  const received = parentPort === null ? undefined : receiveMessageOnPort(parentPort);
  if (received !== undefined) take(received.message as ThreadCommand);
  else step();
}
for (const { transport, shell } of nodes) {
  shell.storage.close();
  transport.close();
}
report({ stopped: true });
