/**
 * Watches, hands over and stops whole VMs on this machine: what the CLI calls. Guarantee: a stop removes every process,
 * tap and bridge of the VM, also after crashes.
 */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { agentMark } from './agent-process.ts';
import { GaiaError } from './core/errors.ts';
import { readEvents, type AgentEvent } from './event-log.ts';
import { Bridge } from './io/bridge.ts';
import { controlRequest } from './io/control-api.ts';
import { folders } from './io/folders.ts';
import { endProcess, readPid } from './io/process.ts';
import { selfCommand } from './io/project-folder.ts';
import { askReplica, stopElsewhere } from './remote-replicas.ts';
import {
  isLocal,
  localReplicas,
  qemuMark,
  readVmPlan,
  replicaFiles,
  stoppingFile,
  vmPlanFile,
  type VmPlan,
} from './vm-plan.ts';
import { vmStatus, type VmStatus } from './vm-status.ts';
import { VmTimeoutError } from './vm-wait.ts';

const controlTimeoutMs = 1000;
const stopTimeoutMs = 5000;
const pollMs = 20;
/** What agents make in a replica's state folder. */
const stateEntries = ['log', 'events.ndjson', 'events.ndjson.1', 'agent.lock', 'peers.json'] as const;

/** As `replica` saw them, or as the leader did when none is named. */
export async function vmEvents(name: string, replica?: string): Promise<readonly AgentEvent[]> {
  if (replica === undefined) {
    const { leader, reason } = await vmStatus(name);
    if (leader === null)
      throw new GaiaError('GAIA_NO_LEADER', `VM ${name} has no leader (${reason}): name a --replica`);
    return vmEvents(name, leader);
  }
  const plan = readVmPlan(name);
  if (!plan.replicas.some((candidate) => candidate.name === replica))
    throw new GaiaError(
      'GAIA_REPLICA_UNKNOWN',
      `VM ${name} has no replica "${replica}": see "gaia-vm status ${name}"`,
    );
  if (!isLocal(plan, replica)) return (await askReplica(plan, replica, 'events')) as AgentEvent[];
  const { agentSocket, eventsFile } = replicaFiles(name, replica);
  try {
    return (await controlRequest(agentSocket, 'GET', '/v1/events', controlTimeoutMs)) as AgentEvent[];
  } catch {
    // Its agent has ended or hangs: what it wrote down is still there.
    return readEvents(eventsFile);
  }
}

/** Names of the VMs of this machine. */
export function vmNames(): string[] {
  const { state } = folders();
  if (!existsSync(state)) return [];
  return readdirSync(state).filter((name) => existsSync(vmPlanFile(name)));
}

/** Ends the VM, on all of its hosts, and removes all that it made; `onlyHere`: on this host, for good. */
export async function stopVm(name: string, onlyHere = false): Promise<void> {
  const plan = readVmPlan(name);
  if (!onlyHere) await stopElsewhere(plan);
  await endProcesses(plan);
  removeVm(plan);
}

/** Removes what is left of a VM of which nothing runs here. */
export function removeVm({ name, hosts }: VmPlan): void {
  rmSync(vmPlanFile(name), { force: true }); // First, since without it the VM is none.
  if (hosts !== undefined) emptyStateFolder(replicaFiles(name, hosts.local).stateFolder);
  removeFolder(join(folders().state, name));
  rmSync(join(folders().run, name), { recursive: true, force: true });
}

/** It may be a link to a folder that an operator made: only what is ours goes. */
function emptyStateFolder(folder: string): void {
  for (const entry of stateEntries) rmSync(join(folder, entry), { recursive: true, force: true });
}

/** Ends whatever runs of the VM, and takes its network down; what it is made of stays. */
export async function endProcesses(plan: VmPlan): Promise<void> {
  const { name } = plan;
  try {
    writeFileSync(stoppingFile(name), '');
  } catch (error) {
    // A full disk is a reason to stop a VM, too; without the mark an agent may be started again, and is ended below.
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  await Promise.all(localReplicas(plan).map((replica) => stopReplica(name, replica.name)));
  if (plan.network.joined !== true) await Bridge.named(plan.network.bridge).remove();
  rmSync(join(folders().run, name), { recursive: true, force: true });
}

/** A disk of its own that an operator mounted there for a replica is emptied; it stays mounted. */
function removeFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
  }
}

async function stopReplica(name: string, replica: string): Promise<void> {
  const files = replicaFiles(name, replica);
  const qemuPid = readPid(files.qemuPidFile);
  const agentPid = readPid(files.agentPidFile);
  try {
    await controlRequest(files.agentSocket, 'POST', '/v1/stop', controlTimeoutMs);
  } catch {
    // A dead agent cannot be asked; its processes are ended below.
  }
  await endProcess(agentPid, agentMark, stopTimeoutMs);
  await endProcess(readPid(files.qemuPidFile) ?? qemuPid, qemuMark(name, replica), stopTimeoutMs);
}

export interface FailoverReport {
  readonly from: string;
  readonly to: string;
  readonly term: number;
  /** For how long nobody served, as the new leader tells; null: it has not told yet. */
  readonly gapMs: number | null;
}

/** Hands the leadership over to `to`, or to the other executing replica, and waits until that one serves. */
export async function failOver(
  name: string,
  to: string | undefined,
  timeoutMs: number,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<FailoverReport> {
  const plan = readVmPlan(name);
  const before = await vmStatus(name);
  const { from, target } = handover(plan, before, to);
  const id = plan.replicas.find((replica) => replica.name === target)?.id ?? -1;
  const { refusal } = (await askHandOver(plan, from, id)) as { readonly refusal: string | null };
  if (refusal !== null)
    throw new GaiaError('GAIA_HANDOVER', `${from} does not hand over to ${target} now: ${refusal}`);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const status = await vmStatus(name);
    const { leader, term, lastFailover } = status;
    if (leader === target) {
      const told = lastFailover?.to === target && status.term > before.term ? lastFailover.gapMs : null;
      return { from, to: target, term, gapMs: told };
    }
    report(`${target} takes over`);
    if (performance.now() > deadline) throw new VmTimeoutError(status, `led by ${target}`, timeoutMs);
    await delay(pollMs);
  }
}

function askHandOver(plan: VmPlan, from: string, to: number): Promise<unknown> {
  if (!isLocal(plan, from)) return askReplica(plan, from, 'hand over', { to: String(to) });
  const { agentSocket } = replicaFiles(plan.name, from);
  return controlRequest(agentSocket, 'POST', `/v1/hand-over?to=${to}`, controlTimeoutMs);
}

/** Who hands over to whom. Throws where that cannot be. */
function handover(
  plan: VmPlan,
  status: VmStatus,
  to: string | undefined,
): { readonly from: string; readonly target: string } {
  const { name, leader, replicas } = status;
  if (leader === null)
    throw new GaiaError(
      'GAIA_NO_LEADER',
      `VM ${name} has no leader (${status.reason}): nobody can hand over`,
    );
  if (to !== undefined && !plan.replicas.some((replica) => replica.name === to))
    throw new GaiaError(
      'GAIA_REPLICA_UNKNOWN',
      `VM ${name} has no replica "${to}": see "${selfCommand()} status ${name}"`,
    );
  if (to === leader) throw new GaiaError('GAIA_HANDOVER', `${to} leads VM ${name} already`);
  const executing = replicas.find((replica) => replica.name === leader)?.status?.executing ?? [];
  const able = plan.replicas.filter((replica) => executing.includes(replica.id) && replica.name !== leader);
  const target = able.find((replica) => to === undefined || replica.name === to);
  if (target === undefined)
    throw new GaiaError(
      'GAIA_HANDOVER',
      to === undefined
        ? `No other replica of VM ${name} executes: wait until it is PROTECTED`
        : `${to} runs no guest that is equal to the leader's: it cannot take over VM ${name}`,
    );
  return { from: leader, target: target.name };
}
