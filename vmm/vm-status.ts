/**
 * How a VM is, asked anew each time from all of its agents. Guarantees: nothing is answered from memory; a replica
 * that does not answer is unknown, not dead; PROTECTED is said only when every agent has just said so.
 */
import { agentRuns } from './agent-process.ts';
import type { AgentStatus, Failover } from './agent-status.ts';
import type { Protection } from './engine-protocol.ts';
import type { ExecutionMode } from './core/rounds/round-parts.ts';
import { controlRequest } from './io/control-api.ts';
import { selfCommand } from './io/project-folder.ts';
import { addressOf, askReplica } from './remote-replicas.ts';
import { isLocal, readVmPlan, replicaFiles, vmOff, type VmPlan } from './vm-plan.ts';

const answerTimeoutMs = 1000;

/** One replica as an operator sees it; `undefined` status: unreachable, which is not the same as dead. */
export interface ReplicaStatus {
  readonly name: string;
  /** The address of its host; null: this machine. */
  readonly host: string | null;
  /** Its process is there; null: it is on another host, and nobody here can tell. */
  readonly agentRuns: boolean | null;
  readonly status: AgentStatus | undefined;
  /** How long ago it answered, or how long it was waited for. */
  readonly ageMs: number;
}

export interface VmStatus {
  readonly name: string;
  readonly protection: Protection;
  /** Why it is so. */
  readonly reason: string;
  /** Since when it is not PROTECTED, ISO 8601, where that is known. */
  readonly since: string | null;
  /** What is being done about it, and how far it is. */
  readonly doing: string | null;
  /** The one command to run, if any. */
  readonly command: string | null;
  readonly leader: string | null;
  readonly term: number;
  readonly replicasUp: number;
  readonly replicasTotal: number;
  readonly mode: ExecutionMode;
  /** Why that mode. */
  readonly modeReason: string;
  readonly vcpus: number;
  readonly accelerator: 'tcg' | 'kvm';
  readonly address: string;
  readonly port: number | null;
  readonly image: string;
  readonly lastFailover: VmFailover | null;
  readonly replicas: readonly ReplicaStatus[];
}

interface VmFailover {
  readonly time: string;
  readonly from: string;
  readonly to: string;
  readonly gapMs: number;
}

type Health = Pick<VmStatus, 'protection' | 'reason' | 'since' | 'doing' | 'command'>;

export async function vmStatus(name: string): Promise<VmStatus> {
  const plan = readVmPlan(name);
  return summarize(plan, await Promise.all(plan.replicas.map((replica) => statusOf(plan, replica.name))));
}

async function statusOf(plan: VmPlan, name: string): Promise<ReplicaStatus> {
  const here = isLocal(plan, name);
  const { agentSocket } = replicaFiles(plan.name, name);
  const asked = performance.now();
  const asking = here
    ? controlRequest(agentSocket, 'GET', '/v1/status', answerTimeoutMs)
    : askReplica(plan, name, 'status');
  const answer = await asking.catch(() => undefined);
  return {
    name,
    host: here ? null : addressOf(plan, name).host,
    agentRuns: here ? agentRuns(plan.name, name) : null,
    status: answer as AgentStatus | undefined,
    ageMs: performance.now() - asked,
  };
}

function summarize(plan: VmPlan, replicas: readonly ReplicaStatus[]): VmStatus {
  const answers = replicas.flatMap(({ status }) => (status === undefined ? [] : [status]));
  const serving = answers.filter((status) => status.serving).sort((a, b) => b.term - a.term)[0];
  return {
    name: plan.name,
    ...judge(plan, serving, replicas),
    leader: serving?.name ?? null,
    term: Math.max(0, ...answers.map((status) => status.term)),
    replicasUp: answers.length,
    replicasTotal: plan.replicas.length,
    mode: plan.mode,
    modeReason: plan.modeReason,
    vcpus: plan.guest.vcpus,
    accelerator: plan.guest.accelerator,
    address: plan.network.guestAddress.split('/')[0] ?? '',
    port: plan.guest.port,
    image: plan.guest.image,
    lastFailover: newestFailover(plan, answers),
    replicas,
  };
}

function newestFailover(plan: VmPlan, answers: readonly AgentStatus[]): VmFailover | null {
  // By term: the clocks of separate hosts need not agree.
  const newest = answers
    .flatMap(({ failover }): Failover[] => (failover === null ? [] : [failover]))
    .sort((a, b) => b.term - a.term)[0];
  if (newest === undefined) return null;
  const { time, from, to, gapMs } = newest;
  return { time, from: nameOf(plan, from), to: nameOf(plan, to), gapMs };
}

function nameOf(plan: VmPlan, id: number): string {
  return plan.replicas.find((replica) => replica.id === id)?.name ?? String(id);
}

function judge(plan: VmPlan, serving: AgentStatus | undefined, replicas: readonly ReplicaStatus[]): Health {
  const off = vmOff(plan.name);
  if (off !== undefined) return guestIsOff(plan, off);
  const total = plan.replicas.length;
  const up = replicas.filter(({ status }) => status !== undefined).length;
  if (up * 2 <= total) return withoutQuorum(plan, replicas, up);
  if (serving === undefined) return withoutExecutor(plan, replicas);
  const executing = serving.executing.filter((id) =>
    replicas.some(({ status }) => status?.replica === id && status.state === 'running'),
  );
  if (executing.length < 2 && !serving.guestReady)
    return { protection: 'STARTING', reason: 'the guest boots', since: null, doing: null, command: null };
  const alone = executing.length < 2;
  const troubles = replicas.flatMap((replica) => troubleOf(replica, serving) ?? []);
  if (!alone && troubles.length === 0)
    return {
      protection: 'PROTECTED',
      reason: 'survives the loss of any one host',
      since: null,
      doing: null,
      command: null,
    };
  const reason = [...(alone ? [`${serving.name} executes alone`] : []), ...troubles].join(', ');
  const health = { protection: 'DEGRADED', reason, since: degradedSince(serving) } as const;
  const { doing, command } = remedy(plan, serving, replicas);
  const apart = replicas.find((replica) => isApart(replica, serving));
  const why = apart === undefined ? null : `${selfCommand()} events ${plan.name} --replica ${apart.name}`;
  return { ...health, doing, command: command ?? why };
}

/** What keeps a replica from being one that could make up for the loss of another. */
function troubleOf(replica: ReplicaStatus, serving: AgentStatus): string | undefined {
  const { name, status, agentRuns: runs } = replica;
  if (status === undefined) return `${name} ${runs === false ? 'has ended' : 'does not answer'}`;
  if (isApart(replica, serving)) return `${name} takes no part yet`;
  // It could not make up a majority.
  return status.state === 'disk full' ? `${name} has no space for its log` : undefined;
}

/** It answers but follows nobody, and so has no part in the log: its peers refuse it, say. */
function isApart({ status }: ReplicaStatus, serving: AgentStatus): boolean {
  return status !== undefined && status.leader !== serving.replica;
}

function guestIsOff(plan: VmPlan, { since, how }: { readonly since: string; readonly how: string }): Health {
  const reason =
    how === 'crashed' ? 'the guest has crashed, on all replicas alike' : 'the guest has powered itself off';
  const { hosts, name } = plan;
  const command =
    hosts === undefined
      ? `${selfCommand()} start ${name}`
      : `${selfCommand()} stop ${name} --here && systemctl start gaia-vm@${name}   on each host boots it afresh`;
  return { protection: 'OFF', reason, since, doing: null, command };
}

function withoutQuorum(plan: VmPlan, replicas: readonly ReplicaStatus[], up: number): Health {
  const frozen = replicas.filter(({ status, agentRuns: runs }) => status === undefined && runs !== false);
  const reason = `${up} of ${plan.replicas.length} agents answer, which is no majority: nothing is served`;
  const health = { protection: 'NO-QUORUM', reason, since: null } as const;
  if (up === 0 && frozen.length === 0)
    return {
      ...health,
      doing: null,
      command: `${selfCommand()} start ${plan.name}${plan.durability === 'disk' ? ' --discard-log' : ''}   boots the guest afresh: what was in its memory is lost`,
    };
  const doing =
    plan.hosts === undefined
      ? 'waits for a majority; ended agents are started again'
      : `waits for ${frozen.map(({ name, host }) => `${name}${host === null ? '' : ` (${host})`}`).join(' or ')}`;
  return { ...health, doing, command: startHere(plan, replicas) };
}

function withoutExecutor(plan: VmPlan, replicas: readonly ReplicaStatus[]): Health {
  const states = replicas.flatMap(({ status }) => (status === undefined ? [] : [status.state]));
  const health = { protection: 'NO-EXECUTOR', since: null } as const;
  if (states.every((state) => state === 'starting') || states.includes('running'))
    return { ...health, reason: 'no replica serves yet', doing: 'an election is under way', command: null };
  return {
    ...health,
    reason: 'no guest is left that holds what was committed',
    doing: null,
    command: `${selfCommand()} stop ${plan.name}, then start ${plan.hosts === undefined ? 'it' : 'its agents'}: it boots afresh, what was in its memory is lost`,
  };
}

function degradedSince({ aloneForMs, missing }: AgentStatus): string | null {
  const longestMs = Math.max(aloneForMs ?? -1, ...missing.map(({ forMs }) => forMs));
  return longestMs < 0 ? null : new Date(Date.now() - longestMs).toISOString();
}

/** What goes on until it is PROTECTED again: the first thing that is still missing. */
function remedy(
  plan: VmPlan,
  serving: AgentStatus,
  replicas: readonly ReplicaStatus[],
): Pick<Health, 'doing' | 'command'> {
  const failing = serving.missing.find(({ attempts }) => attempts > 1);
  const doing = nextStep(plan, serving, replicas);
  const command =
    failing === undefined
      ? startHere(plan, replicas)
      : `${selfCommand()} logs ${plan.name} --replica ${nameOf(plan, failing.replica)}`;
  return { doing, command };
}

/** Of a VM on several hosts: what starts the agent of this one, where it has ended. */
function startHere({ name, hosts }: VmPlan, replicas: readonly ReplicaStatus[]): string | null {
  const ended = replicas.some(({ host, agentRuns: runs }) => host === null && runs === false);
  return hosts !== undefined && ended ? `systemctl start gaia-vm@${name}` : null;
}

function nextStep(plan: VmPlan, serving: AgentStatus, replicas: readonly ReplicaStatus[]): string | null {
  const { transfer, missing } = serving;
  if (transfer !== null) {
    const percent = Math.floor((100 * transfer.sentBytes) / Math.max(1, transfer.totalBytes));
    const sent = `${megabytes(transfer.sentBytes)} of at most ${megabytes(transfer.totalBytes)} MB (${percent} %)`;
    const how = transfer.guestStands ? 'the guest stands for the rest' : 'behind the running guest';
    return `sends its state to ${nameOf(plan, transfer.to)}: ${sent}, ${how}`;
  }
  const [gone] = missing;
  if (gone !== undefined && !isLocal(plan, nameOf(plan, gone.replica))) {
    const name = nameOf(plan, gone.replica);
    return `waits for ${name}: its agent, its host ${addressOf(plan, name).host}, or the way there`;
  }
  if (gone !== undefined) {
    const attempt = gone.attempts === 0 ? '' : ` (attempt ${gone.attempts})`;
    return `starts ${nameOf(plan, gone.replica)} again${attempt}`;
  }
  const waiting = replicas.find(({ status }) => status?.state === 'waiting for state');
  if (waiting !== undefined) return `${waiting.name} is back and waits for state`;
  const without = replicas.find(({ status }) => status?.state === 'guest lost');
  if (without !== undefined) return `${without.name} starts its guest again`;
  const full = replicas.find(({ status }) => status?.state === 'disk full');
  if (full !== undefined) return `${full.name} waits for space on the disk of its log`;
  const frozen = replicas.find(({ status, agentRuns: runs }) => status === undefined && runs !== false);
  if (frozen === undefined) return null;
  return frozen.host === null
    ? `waits for ${frozen.name}, whose process is there`
    : `waits for an answer of ${frozen.name} (${frozen.host})`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}
