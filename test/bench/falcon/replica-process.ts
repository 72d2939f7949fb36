/**
 * One replica in a process of its own, so that it can be killed: tells its parent when it begins to lead, in
 * microseconds of the machine's monotonic clock.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { native } from '../../../native/binding.ts';
import type { ReplicaId } from '../../../vmm/core/ids.ts';
import type { PeerCard } from '../../../vmm/io/transport/transport.ts';
import { nowUs, ReplicaNode, type NodeSettings } from './replica-node.ts';

/** From parent to process. */
export interface ConnectMessage {
  /** By peer: its card for this replica. */
  readonly cards: Readonly<Record<number, PeerCard>>;
}

/** From process to parent. */
export type ProcessReport =
  { readonly cards: Readonly<Record<number, PeerCard>> } | { readonly leadsAtUs: number };

const first = 1 as ReplicaId;
const second = 2 as ReplicaId;
const waitUs = 5000;
const turnIntervalUs = 20_000;

const settings = JSON.parse(process.argv[2] ?? '') as NodeSettings;
const node = new ReplicaNode(settings);
const state = { started: false, led: false };

function report(message: ProcessReport): void {
  process.send?.(message);
}

function step(): void {
  if (node.pass(nowUs())) return;
  const { transport } = node;
  transport.prepareWait();
  const { waitFds } = transport;
  const ready = new Uint8Array(waitFds.length);
  if (!node.pass(nowUs()) && transport.mayWait)
    native().waitReadable(Int32Array.from(waitFds), ready, waitUs);
  transport.endWait((fd) => ready[waitFds.indexOf(fd)] === 1);
}

/** The first leader names a second executor, which may serve after it. */
function shareExecution(): void {
  const { falcon } = node.shell;
  if (node.id !== first || !node.leads || falcon.executingSet.length > 1) return;
  falcon.proposeExecutingSet([...falcon.executingSet, { replica: second, incarnation: 1 }]);
}

/** The first leader counts once it has a successor. */
function serves(): boolean {
  return node.leads && (node.id !== first || node.shell.falcon.executingSetCommitted.length > 1);
}

process.on('message', ({ cards }: ConnectMessage) => {
  for (const [peer, card] of Object.entries(cards)) node.transport.connect(Number(peer) as ReplicaId, card);
  node.shell.falcon.start(nowUs());
  state.started = true;
});
process.on('disconnect', () => process.exit(0));
report({ cards: node.cards(settings.voters) });

for (let turnAtUs = 0; ;) {
  if (state.started) {
    step();
    shareExecution();
    if (serves() && !state.led) report({ leadsAtUs: Number(process.hrtime.bigint() / 1000n) });
    state.led = serves();
  }
  if (state.started && nowUs() < turnAtUs) continue;
  turnAtUs = nowUs() + turnIntervalUs;
  await turn();
}
