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
      /** It ends with the first of the two, after a warm-up for so many seconds. */
      readonly samplesMax: number;
      readonly seconds: number;
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
/** More than there is time for: it takes the compiler some hundred thousand records to be done. */
const warmupSamplesMax = 1_000_000;

const { nodes: settings, waiting } = workerData as ThreadStart;
const voters = settings[0]?.voters ?? 0;
const nodes = settings.map((node) => new ReplicaNode(node));
const leader = nodes.find((node) => node.id === 1);
const state: { stopped: boolean; act: (() => void) | undefined } = { stopped: false, act: undefined };
let idleSinceUs = nowUs();

function report(message: ThreadReport): void {
  parentPort?.postMessage(message);
}

function step(): void {
  const now = nowUs();
  if (passAll(now)) idleSinceUs = now;
  else if (waiting === 'blocking' && now - idleSinceUs >= spinUs) sleep();
}

function passAll(now: number): boolean {
  let worked = false;
  for (const node of nodes) worked = node.pass(now, node === leader ? state.act : undefined) || worked;
  return worked;
}

function sleep(): void {
  for (const { transport } of nodes) transport.prepareWait();
  const worked = passAll(nowUs());
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

/** From propose to commit, one record at a time, both as an agent sees them: between its inputs and its outputs. */
function latencies(
  node: ReplicaNode,
  payloadBytes: number,
  samplesMax: number,
  seconds: number,
): Float64Array {
  const payload = new Uint8Array(payloadBytes).fill(0x5a);
  const times = new Float64Array(samplesMax);
  const { falcon } = node.shell;
  const untilUs = nowUs() + seconds * 1e6;
  let taken = 0;
  let index = 0;
  let beganUs = -1;
  state.act = () => {
    if (index !== 0) {
      if (falcon.commitIndex < index) return;
      times[taken++] = nowUs() - beganUs;
      index = 0;
      beganUs = -1;
    }
    const now = nowUs();
    if (taken === samplesMax || (beganUs < 0 && now >= untilUs)) return;
    // A record that is refused waits from here on.
    if (beganUs < 0) beganUs = now;
    index = node.propose(payload);
  };
  do step();
  while (beganUs >= 0);
  state.act = undefined;
  return times.subarray(0, taken).slice();
}

/** As many records on their way at once as `window` says. */
function throughput(node: ReplicaNode, payloadBytes: number, seconds: number, window: number): number {
  const payload = new Uint8Array(payloadBytes).fill(0x5a);
  const { falcon } = node.shell;
  const firstIndex = falcon.commitIndex;
  const began = nowUs();
  const untilUs = began + seconds * 1e6;
  state.act = () => {
    while (falcon.log.lastIndex - falcon.commitIndex < window && node.propose(payload) !== 0);
  };
  while (nowUs() < untilUs) step();
  const rate = ((falcon.commitIndex - firstIndex) * 1e6) / (nowUs() - began);
  state.act = undefined;
  while (falcon.commitIndex < falcon.log.lastIndex) step();
  return rate;
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
      latencies(leader, command.payloadBytes, warmupSamplesMax, command.seconds);
      report({
        latenciesUs: latencies(leader, command.payloadBytes, command.samplesMax, command.seconds),
      });
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
