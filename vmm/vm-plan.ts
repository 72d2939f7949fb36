/** What a VM is made of: written once by `gaia-vm start` to vm.json, read by every agent of the VM. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { GaiaError } from './core/errors.ts';
import type { ReplicaId } from './core/ids.ts';
import type { ExecutionMode } from './core/rounds/round-parts.ts';
import { folders } from './io/folders.ts';
import type { Machine } from './io/qemu/profile.ts';
import type { PeerAddress } from './io/transport/meeting.ts';
import type { TransportSettings } from './io/transport/open.ts';

/** What carries consensus; see docs/transport.md. */
export type TransportName = 'shm' | 'fabric';
/** What carries a fabric: TCP, or RDMA verbs. */
export type FabricProviderName = 'tcp' | 'verbs';

export interface ReplicaPlan {
  readonly id: ReplicaId;
  /** Names the replica for people and its folders. */
  readonly name: string;
  /** Runs a QEMU: the leader and the major backup do, the standby does not. */
  readonly executes: boolean;
  readonly tap: string;
  /** Where it listens for its peers; only with the transport `fabric`. */
  readonly peerAddress?: PeerAddress;
}

export interface GuestPlan {
  readonly image: string;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly kernelArguments: readonly string[];
  readonly readyMarker: string | null;
  readonly port: number | null;
  readonly machine: Machine;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly accelerator: 'tcg' | 'kvm';
  /** Tests: after each round all memory is compared, whatever is known of it. */
  readonly scans: boolean;
  readonly mac: string;
  /** What the guest's clock shows at power-on, UTC. */
  readonly rtcBase: string;
}

interface NetworkPlan {
  readonly bridge: string;
  /** Address of the host on the bridge, with prefix length. */
  readonly hostAddress: string;
  /** Address of the guest, with prefix length. */
  readonly guestAddress: string;
  /** The bridge was there before the VM and stays: only the tap is ours. `hostAddress` is the guest's gateway then. */
  readonly joined?: true;
}

export interface VmPlan {
  readonly schema: 1;
  readonly name: string;
  /** Tells this VM's replicas from those of any other: a decimal number below 2^64. */
  readonly clusterId: string;
  readonly mode: ExecutionMode;
  /** Why that mode, for people. */
  readonly modeReason: string;
  readonly transport: TransportName;
  /** What carries the transport `fabric`; absent: TCP. */
  readonly provider?: FabricProviderName;
  /** What a record must be before it counts: on the disks of a majority, or in their memory. */
  readonly durability: 'disk' | 'memory';
  readonly qemu: string;
  /** User and group that its QEMUs run under. */
  readonly uid: number;
  readonly replicas: readonly ReplicaPlan[];
  readonly guest: GuestPlan;
  readonly network: NetworkPlan;
  /** Replicas on separate hosts; absent: all of them are on this machine. */
  readonly hosts?: HostsPlan;
}

/** What one host knows of a VM whose other replicas are elsewhere. */
interface HostsPlan {
  /** Name of the replica that runs here. */
  readonly local: string;
  /** What all hosts must have alike, as texts that can be told and compared. */
  readonly shared: Readonly<Record<string, string>>;
}

export const vmNamePattern = /^[a-z][a-z0-9-]{0,31}$/;

/** Those whose processes and files are on this machine. */
export function localReplicas(plan: VmPlan): readonly ReplicaPlan[] {
  return plan.replicas.filter(({ name }) => isLocal(plan, name));
}

export function isLocal({ hosts }: VmPlan, replica: string): boolean {
  return hosts === undefined || hosts.local === replica;
}

/** What this replica's engine opens. */
export function transportSettings(plan: VmPlan, self: ReplicaId): TransportSettings {
  if (plan.transport === 'shm') return { kind: 'shm' };
  const address = plan.replicas.find(({ id }) => id === self)?.peerAddress;
  if (address === undefined)
    throw new GaiaError('GAIA_VM_PLAN', `Replica ${self} of VM ${plan.name} has no address for its peers`);
  return { kind: 'fabric', provider: `${plan.provider ?? 'tcp'};ofi_rxm`, address: address.host };
}

/** Folders and files of one replica; nothing is made. */
export function replicaFiles(vm: string, replica: string) {
  const { run, state } = folders();
  const runFolder = join(run, vm, replica);
  const stateFolder = join(state, vm, replica);
  return {
    runFolder,
    stateFolder,
    logFolder: join(stateFolder, 'log'),
    eventsFile: join(stateFolder, 'events.ndjson'),
    lockFile: join(stateFolder, 'agent.lock'),
    peersFile: join(stateFolder, 'peers.json'),
    agentSocket: join(runFolder, 'agent.sock'),
    portSocket: join(runFolder, 'port.sock'),
    agentPidFile: join(runFolder, 'agent.pid'),
    qemuPidFile: join(runFolder, 'qemu.pid'),
    rootFolder: join(runFolder, 'root'),
    serialFile: join(runFolder, 'serial.log'),
    earlierSerialFile: join(runFolder, 'serial.1.log'),
    agentLogFile: join(runFolder, 'agent.log'),
    qemuLogFile: join(runFolder, 'qemu.log'),
    hardStateFile: join(stateFolder, 'log', 'hard-state.json'),
  } as const;
}

/** What the command line of a replica's QEMU holds, and no other. */
export function qemuMark(vm: string, replica: string): string {
  return `gaia-${vm}-${replica}`;
}

export function vmPlanFile(vm: string): string {
  return join(folders().state, vm, 'vm.json');
}

/** There while the VM is being stopped: nothing of it is started any more. */
export function stoppingFile(vm: string): string {
  return join(folders().state, vm, 'stopping');
}

/** There once the guest has ended by itself: it stays off until somebody starts the VM again. */
export function offFile(vm: string): string {
  return join(folders().state, vm, 'off');
}

/** Since when the guest is off, and how it came to be; undefined: it is not. */
export function vmOff(vm: string): { readonly since: string; readonly how: string } | undefined {
  try {
    const [since = '', how = ''] = readFileSync(offFile(vm), 'utf8').trim().split('\t');
    return { since, how };
  } catch {
    return undefined;
  }
}

/** Nothing of it may be started now. */
export function vmIsStopping(vm: string): boolean {
  return existsSync(stoppingFile(vm)) || existsSync(offFile(vm)) || !existsSync(vmPlanFile(vm));
}

/** A decimal number below 2^64 that no other VM has. */
export function newClusterId(): string {
  return randomBytes(8).readBigUInt64LE().toString();
}

/** A power-on clock of a guest. */
export function secondsOf(date: Date): string {
  return date.toISOString().slice(0, 19);
}

export function writeVmPlan(plan: VmPlan): void {
  const file = vmPlanFile(plan.name);
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(file, `${JSON.stringify(plan, undefined, 2)}\n`, { mode: 0o600 });
}

export function readVmPlan(vm: string): VmPlan {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(vmPlanFile(vm), 'utf8'));
  } catch (error) {
    throw new GaiaError('GAIA_VM_UNKNOWN', `There is no VM "${vm}" on this machine: see "gaia-vm list"`, {
      cause: error,
    });
  }
  const plan = value as Partial<VmPlan>;
  if (plan.schema !== 1)
    throw new GaiaError(
      'GAIA_VM_PLAN',
      `${vmPlanFile(vm)} is of another version: stop and start the VM anew`,
    );
  return plan as VmPlan;
}
