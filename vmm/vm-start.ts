/**
 * Starts whole VMs on this machine. Guarantee: a start that fails leaves nothing behind, unless it only took too long:
 * then the VM stays, to be looked at.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { agentMark, agentRuns, startAgent } from './agent-process.ts';
import { GaiaError } from './core/errors.ts';
import { chooseExecution, type Execution, type ExecutionWish } from './execution-choice.ts';
import { leftLogs, LogLeftError } from './left-logs.ts';
import { processRuns, readPid } from './io/process.ts';
import { selfCommand } from './io/project-folder.ts';
import { requireQemu } from './io/qemu/installed.ts';
import { requireBridge, type OperatorNetwork } from './operator-network.ts';
import { refuseMachine } from './machine-refusal.ts';
import { endProcesses, stopVm } from './vm-manager.ts';
import {
  newClusterId,
  offFile,
  qemuMark,
  readVmPlan,
  replicaFiles,
  secondsOf,
  stoppingFile,
  vmNamePattern,
  vmOff,
  vmPlanFile,
  writeVmPlan,
  type GuestPlan,
  type TransportName,
  type VmPlan,
} from './vm-plan.ts';
import { place, reachable, replicaNames, type Placement } from './vm-placement.ts';
import { vmStatus, type VmStatus } from './vm-status.ts';

const pollMs = 50;
const qemuStartsMax = 4;

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
  readonly execution: ExecutionWish;
  /** Compare all memory after each round: for tests of free-running guests. */
  readonly scans: boolean;
  /** Inputs count as agreed once they are on the disks of a majority, or in the memory of one. */
  readonly durability: 'disk' | 'memory';
  readonly transport: TransportName;
  /** Null: a bridge of the VM's own is made. */
  readonly network: OperatorNetwork | null;
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
  refuseMachine(options.name, replicaNames, options.memoryBytes, 2);
  const qemu = await requireQemu();
  report('looking how guests run here');
  const execution = await chooseExecution(options.execution, qemu.file);
  const placement = await place(options.name, options.network, report);
  try {
    writeVmPlan(await reachable(makePlan(options, execution, qemu.file, placement)));
  } catch (error) {
    rmSync(vmPlanFile(options.name), { force: true });
    await placement.undo();
    throw error;
  }
  return launch(options, report, signal);
}

/** A VM that is there, but of which nothing runs: its agents have all ended, or the machine was started anew. */
export function vmHasEnded(name: string): boolean {
  if (!existsSync(vmPlanFile(name))) return false;
  const plan = readVmPlan(name);
  if (plan.hosts !== undefined) return false;
  return !plan.replicas.some((replica) => {
    const { qemuPidFile } = replicaFiles(name, replica.name);
    return agentRuns(name, replica.name) || processRuns(readPid(qemuPidFile), qemuMark(name, replica.name));
  });
}

/**
 * Boots a VM that has ended afresh, from what it was made of. What was in its guest's memory is lost; records that its
 * logs hold only with `discardLog`, unless the guest has ended itself: LogLeftError otherwise.
 */
export async function restartVm(
  name: string,
  discardLog: boolean,
  timeoutMs: number,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  const plan = readVmPlan(name);
  // A guest that has ended itself has ended in its log, too: nothing there could be gone on with.
  const found = discardLog || vmOff(name) !== undefined ? [] : leftLogs(plan);
  if (found.length > 0) throw new LogLeftError(name, found);
  refuseMachine(name, replicaNames, plan.guest.memoryBytes, 2);
  const qemu = await requireQemu();
  const { joined, bridge } = plan.network;
  if (joined === true) await requireBridge(bridge);
  report('clearing away what is left of it');
  await endProcesses(plan);
  for (const replica of plan.replicas)
    rmSync(replicaFiles(name, replica.name).logFolder, { recursive: true, force: true });
  const placement = joined === true ? undefined : await place(name, null, report);
  const afresh: VmPlan = {
    ...plan,
    clusterId: newClusterId(),
    qemu: qemu.file,
    ...placement?.parts,
    guest: { ...plan.guest, rtcBase: secondsOf(new Date()) },
  };
  writeVmPlan(await reachable(afresh));
  rmSync(offFile(name), { force: true });
  rmSync(stoppingFile(name), { force: true });
  return launch({ name, timeoutMs }, report, signal);
}

async function launch(
  options: Pick<StartOptions, 'name' | 'timeoutMs'>,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  const { name } = options;
  try {
    for (const replica of readVmPlan(name).replicas) startAgent(name, replica.name);
    return await untilProtected(options, report, signal);
  } catch (error) {
    if (!(error instanceof StartTimeoutError)) await stopVm(name);
    throw error;
  }
}

function refuseStart({ name, replicas, image, memoryBytes }: StartOptions): void {
  if (!vmNamePattern.test(name))
    throw new GaiaError(
      'GAIA_VM_NAME',
      `"${name}" cannot name a VM: use up to 32 lower-case letters, digits and hyphens, a letter first`,
    );
  if (vmHasEnded(name))
    throw new GaiaError(
      'GAIA_VM_EXISTS',
      `VM ${name} exists already, but nothing of it runs: "${selfCommand()} start ${name}" boots it afresh, without other options; "${selfCommand()} stop ${name}" removes it`,
    );
  if (existsSync(vmPlanFile(name)) && readVmPlan(name).hosts !== undefined)
    throw new GaiaError(
      'GAIA_VM_EXISTS',
      `VM ${name} has its replicas on separate hosts: "${selfCommand()} agent --config FILE" runs the one of this host`,
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

function makePlan(
  { name, image, memoryBytes, durability, transport, execution: { vcpus }, scans }: StartOptions,
  { mode, reason, accelerator }: Execution,
  qemu: string,
  { parts, mac }: Placement,
): VmPlan {
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
    vcpus,
    accelerator,
    scans,
    mac: mac ?? `52:54:00:${hex}`,
    rtcBase: secondsOf(new Date()),
  };
  return {
    schema: 1,
    name,
    clusterId: newClusterId(),
    mode,
    modeReason: reason,
    transport,
    durability,
    qemu,
    guest,
    ...parts,
  };
}

async function untilProtected(
  { name, timeoutMs }: Pick<StartOptions, 'name' | 'timeoutMs'>,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const status = await vmStatus(name);
    if (status.protection === 'PROTECTED') return status;
    report(status.doing ?? status.reason);
    refuseEndedAgent(status);
    refuseEndedQemu(status);
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

/** A QEMU that ends again and again will not come up. */
function refuseEndedQemu({ name, replicas }: VmStatus): void {
  for (const replica of replicas) {
    const { status } = replica;
    if (status === undefined || status.qemuStarts < qemuStartsMax || status.qemuPid !== null) continue;
    const log = readFileSync(replicaFiles(name, replica.name).qemuLogFile, 'utf8');
    throw new GaiaError(
      'GAIA_QEMU_ENDED',
      `QEMU of ${replica.name} ended ${status.qemuStarts} times before VM ${name} was protected: ${log.trimEnd().split('\n').at(-1) ?? ''}`,
    );
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
