/** What a VM is made of: written once by `gaia-vm start` to vm.json, read by every agent of the VM. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { GaiaError } from './core/errors.ts';
import type { ReplicaId } from './core/ids.ts';
import { folders } from './io/folders.ts';
import type { Machine } from './io/qemu/profile.ts';
import type { PeerAddress } from './io/transport/meeting.ts';
import type { TransportSettings } from './io/transport/open.ts';

/** What carries consensus; see docs/transport.md. */
export type TransportName = 'shm' | 'fabric';

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
}

export interface VmPlan {
  readonly schema: 1;
  readonly name: string;
  /** Tells this VM's replicas from those of any other: a decimal number below 2^64. */
  readonly clusterId: string;
  readonly mode: 'lockstep';
  readonly transport: TransportName;
  /** What a record must be before it counts: on the disks of a majority, or in their memory. */
  readonly durability: 'disk' | 'memory';
  readonly qemu: string;
  /** User and group that its QEMUs run under. */
  readonly uid: number;
  readonly replicas: readonly ReplicaPlan[];
  readonly guest: GuestPlan;
  readonly network: NetworkPlan;
}

export const vmNamePattern = /^[a-z][a-z0-9-]{0,31}$/;

/** What this replica's engine opens. */
export function transportSettings(plan: VmPlan, self: ReplicaId): TransportSettings {
  if (plan.transport === 'shm') return { kind: 'shm' };
  const address = plan.replicas.find(({ id }) => id === self)?.peerAddress;
  if (address === undefined)
    throw new GaiaError('GAIA_VM_PLAN', `Replica ${self} of VM ${plan.name} has no address for its peers`);
  return { kind: 'fabric', provider: 'tcp;ofi_rxm', address: address.host };
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
