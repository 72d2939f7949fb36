/**
 * Starts, watches and stops whole VMs on this machine: what the CLI calls. Guarantees: a start that fails leaves
 * nothing behind, unless it only took too long: then the VM stays, to be looked at; a stop removes every process, tap and bridge of the VM, also after crashes.
 */
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { agentMark, startAgent } from './agent-process.ts';
import { controlRequest } from './io/control-api.ts';
import { BrokenEnvironmentError, GaiaError } from './core/errors.ts';
import { toReplicaId } from './core/ids.ts';
import { readEvents, type AgentEvent } from './event-log.ts';
import { Bridge } from './io/bridge.ts';
import { folders } from './io/folders.ts';
import { endProcess, processRuns, readPid } from './io/process.ts';
import { selfCommand } from './io/project-folder.ts';
import { requireQemu } from './io/qemu/installed.ts';
import { vmStatus, type VmStatus } from './vm-status.ts';
import {
  qemuMark,
  readVmPlan,
  replicaFiles,
  stoppingFile,
  vmNamePattern,
  vmPlanFile,
  type GuestPlan,
  type VmPlan,
} from './vm-plan.ts';

const controlTimeoutMs = 1000;
const pollMs = 50;
const stopTimeoutMs = 5000;
/** sun_path of a Unix socket, without its final NUL. */
const socketPathBytesMax = 107;
const replicaNames = ['alpha', 'beta', 'gamma'] as const;
/** Both guests' power-on clock: any fixed instant does, so that they are equal. */
const secondsOf = (date: Date): string => date.toISOString().slice(0, 19);

/** What a guest is started from; see images/. */
export interface GuestImage {
  readonly name: string;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly kernelArguments: readonly string[];
  readonly readyMarker: string | null;
  readonly port: number | null;
  readonly memoryBytesMin: number;
}

export interface StartOptions {
  readonly name: string;
  readonly image: GuestImage;
  readonly replicas: number;
  readonly memoryBytes: number;
  /** How long until PROTECTED at most. */
  readonly timeoutMs: number;
}

export class StartTimeoutError extends GaiaError {
  constructor(name: string, timeoutMs: number, protection: string, logs: string) {
    super(
      'GAIA_START_TIMEOUT',
      `VM ${name} is ${protection} after ${timeoutMs / 1000} s instead of PROTECTED: see ${logs}`,
    );
  }
}

/** Starts a VM and waits until it is PROTECTED. `report` hears what is waited for. */
export async function startVm(
  options: StartOptions,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  refuseStart(options);
  refuseMachine(options.name);
  const { name } = options;
  const qemu = await requireQemu();
  report('making the bridge');
  const bridge = await Bridge.create();
  try {
    const plan = makePlan(options, qemu.file, bridge);
    const file = vmPlanFile(name);
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    writeFileSync(file, `${JSON.stringify(plan, undefined, 2)}\n`, { mode: 0o600 });
    for (const replica of plan.replicas) startAgent(name, replica.name);
    return await untilProtected(options, report, signal);
  } catch (error) {
    if (existsSync(vmPlanFile(name)) && !(error instanceof StartTimeoutError)) await stopVm(name);
    else if (!existsSync(vmPlanFile(name))) await bridge.remove();
    throw error;
  }
}

function refuseStart({ name, replicas, image, memoryBytes }: StartOptions): void {
  if (!vmNamePattern.test(name))
    throw new GaiaError(
      'GAIA_VM_NAME',
      `"${name}" cannot name a VM: use up to 32 lower-case letters, digits and hyphens, a letter first`,
    );
  if (existsSync(vmPlanFile(name)))
    throw new GaiaError(
      'GAIA_VM_EXISTS',
      `VM ${name} exists already: choose another --name, or stop it first`,
    );
  if (image.kernel === null)
    throw new GaiaError(
      'GAIA_IMAGE_DISK',
      `Image ${image.name} boots from a disk, which cannot be replicated yet: choose one with a kernel`,
    );
  if (replicas !== 3)
    throw new GaiaError('GAIA_REPLICAS', `${replicas} replicas are not possible: give --replicas 3`);
  if (memoryBytes < image.memoryBytesMin)
    throw new GaiaError(
      'GAIA_GUEST_MEMORY',
      `Image ${image.name} needs ${image.memoryBytesMin / 2 ** 20} MiB of memory, not ${memoryBytes / 2 ** 20} MiB`,
    );
}

/** What every agent would stumble over is said once, before anything is made. */
function refuseMachine(name: string): void {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
  } catch (error) {
    throw new BrokenEnvironmentError(
      'GAIA_TUN',
      `/dev/net/tun cannot be opened (${(error as NodeJS.ErrnoException).code ?? 'unknown error'}), and guests have no network without it`,
      `${selfCommand()} check`,
      { cause: error },
    );
  }
  for (const replica of replicaNames) {
    const { portSocket } = replicaFiles(name, replica);
    if (Buffer.byteLength(portSocket) > socketPathBytesMax)
      throw new GaiaError(
        'GAIA_SOCKET_PATH',
        `The socket path ${portSocket} has ${Buffer.byteLength(portSocket)} bytes, and Linux allows ${socketPathBytesMax}: choose a shorter GAIA_ROOT or --name`,
      );
  }
}

function makePlan({ name, image, memoryBytes }: StartOptions, qemu: string, bridge: Bridge): VmPlan {
  const [a = 0, b = 0, c = 0] = randomBytes(3);
  const hex = [a, b, c].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  const guest: GuestPlan = {
    image: image.name,
    kernel: image.kernel,
    initrd: image.initrd,
    kernelArguments: image.kernelArguments,
    readyMarker: image.readyMarker,
    port: image.port,
    machine: 'pc',
    memoryBytes,
    mac: `52:54:00:${hex}`,
    rtcBase: secondsOf(new Date()),
  };
  return {
    schema: 1,
    name,
    clusterId: randomBytes(8).readBigUInt64LE().toString(),
    mode: 'lockstep',
    transport: 'shm',
    durability: 'memory',
    qemu,
    replicas: replicaNames.map((replica, index) => ({
      id: toReplicaId(index),
      name: replica,
      executes: index < 2,
      tap: `${bridge.name}${'abc'[index] ?? ''}`,
    })),
    guest,
    network: {
      bridge: bridge.name,
      hostAddress: bridge.hostAddress,
      guestAddress: bridge.guestAddress,
    },
  };
}

async function untilProtected(
  { name, timeoutMs }: StartOptions,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const status = await vmStatus(name);
    if (status.protection === 'PROTECTED') return status;
    report(status.reason);
    refuseEndedAgent(status);
    if (performance.now() > deadline)
      throw new StartTimeoutError(
        name,
        timeoutMs,
        status.protection,
        replicaFiles(name, 'alpha').agentLogFile,
      );
    await delay(pollMs);
  }
}

/** An agent that could not even begin says why on its last line. */
function refuseEndedAgent({ name, replicas }: VmStatus): void {
  for (const replica of replicas) {
    const { agentPidFile, agentLogFile } = replicaFiles(name, replica.name);
    const pid = readPid(agentPidFile);
    if (pid === undefined || processRuns(pid, agentMark)) continue;
    const failure = readFileSync(agentLogFile, 'utf8')
      .split('\n')
      .find((line) => line.includes('failed: '));
    throw new GaiaError(
      'GAIA_AGENT_ENDED',
      `Agent ${replica.name} ended before VM ${name} was protected: ${failure?.split('failed: ')[1] ?? 'it left no reason'}`,
    );
  }
}

/** As `replica` saw them, or as the leader did when none is named. */
export async function vmEvents(name: string, replica?: string): Promise<readonly AgentEvent[]> {
  if (replica === undefined) {
    const { leader, reason } = await vmStatus(name);
    if (leader === null)
      throw new GaiaError('GAIA_NO_LEADER', `VM ${name} has no leader (${reason}): name a --replica`);
    return vmEvents(name, leader);
  }
  if (!readVmPlan(name).replicas.some((candidate) => candidate.name === replica))
    throw new GaiaError(
      'GAIA_REPLICA_UNKNOWN',
      `VM ${name} has no replica "${replica}": see "gaia-vm status ${name}"`,
    );
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

/** Ends the VM and removes all that it made. */
export async function stopVm(name: string): Promise<void> {
  const plan = readVmPlan(name);
  writeFileSync(stoppingFile(name), '');
  await Promise.all(plan.replicas.map((replica) => stopReplica(name, replica.name)));
  await Bridge.named(plan.network.bridge).remove();
  rmSync(join(folders().run, name), { recursive: true, force: true });
  rmSync(vmPlanFile(name)); // First, since without it the VM is none.
  removeFolder(join(folders().state, name));
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
