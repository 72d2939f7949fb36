/**
 * Runs one replica of a VM whose others are on other hosts, in the foreground: what `gaia-vm agent` does. All hosts are
 * given the same file. What both guests must share beyond it, the first replica's host makes at the VM's first start,
 * and the others ask it for:
 *
 *   alpha's host                        beta's, gamma's host
 *      | makes the origin, vm.json         |
 *      |            question "origin"      |   again and again, until it is answered
 *      |<----------------------------------|
 *      |   cluster id, clock; or why not   |
 *      |---------------------------------->|   vm.json
 *
 * From then on a host starts from its own vm.json. Guarantees: a host whose file, image or QEMU differs takes no part,
 * nor does one that has lost its state; until all three have met, a start may be given up and made again.
 */
import { existsSync, lstatSync, mkdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent } from './agent.ts';
import { GaiaError } from './core/errors.ts';
import { toReplicaId } from './core/ids.ts';
import { chooseExecution, type Execution } from './execution-choice.ts';
import { localReplica, type HostOptions, type ReplicaPlace } from './host-options.ts';
import { hostAddresses } from './io/host-addresses.ts';
import { selfCommand } from './io/project-folder.ts';
import { requireQemu, type InstalledQemu } from './io/qemu/installed.ts';
import { askPeer, PeerUnreachableError } from './io/transport/peer-question.ts';
import { refuseMachine } from './machine-refusal.ts';
import { networkIdentity, requireBridge } from './operator-network.ts';
import { PeerStates } from './peer-states.ts';
import { sharedFacts, type SharedFacts } from './shared-facts.ts';
import { removeVm } from './vm-manager.ts';
import {
  newClusterId,
  readVmPlan,
  replicaFiles,
  secondsOf,
  stoppingFile,
  vmOff,
  vmPlanFile,
  writeVmPlan,
  type GuestPlan,
  type ReplicaPlan,
  type VmPlan,
} from './vm-plan.ts';

const askTimeoutMs = 1000;
const askAgainMs = 500;
const executorsMax = 2;

/** What all replicas share and no file says. */
interface Origin {
  readonly clusterId: string;
  readonly rtcBase: string;
}

/** Runs until it is told to stop. `say` hears what happens, a line each. */
export async function runHostedReplica(
  options: HostOptions,
  wanted: string | undefined,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { name } = options;
  const place = localReplica(options, wanted, await hostAddresses());
  const executes = options.replicas.indexOf(place) < executorsMax;
  const off = vmOff(name);
  if (off !== undefined) {
    say(
      `the guest of VM ${name} has ${off.how} at ${off.since} and stays off: "${selfCommand()} stop ${name} --here" on each host, then start the agents, boots it afresh`,
    );
    return;
  }
  await refuseHost(options, place, executes);
  const qemu = await requireQemu();
  const draft = makeDraft(options, place, qemu, await chooseExecution(options.execution, qemu.file));
  const plan = withOrigin(draft, knownOrigin(draft) ?? (await firstOrigin(draft, say, signal)));
  makeStateFolder(plan, place);
  writeVmPlan(plan);
  const states = new PeerStates(replicaFiles(name, place.name).peersFile);
  signal.throwIfAborted();
  say(`runs replica ${place.name} of VM ${name}, cluster ${plan.clusterId}`);
  const agent = new Agent(plan, replicaOf(plan, place.name), { states, log: say });
  await agent.run();
  if (agent.vmEnds) removeVm(plan);
}

async function refuseHost(
  { name, memoryBytes }: HostOptions,
  place: ReplicaPlace,
  executes: boolean,
): Promise<void> {
  if (existsSync(stoppingFile(name)))
    throw new GaiaError(
      'GAIA_VM_STOPPING',
      `VM ${name} was being ended here: "${selfCommand()} stop ${name} --here" goes on with that`,
    );
  if (executes) await requireBridge(place.bridge);
  refuseMachine(name, [place.name], memoryBytes, executes ? 1 : 0);
}

// The plan -----------------------------------------------------------------------------------------------

/** All that the file says; its origin is still to be found. */
function makeDraft(
  options: HostOptions,
  place: ReplicaPlace,
  qemu: InstalledQemu,
  { mode, reason, accelerator }: Execution,
): VmPlan {
  const { name, image, memoryBytes, durability, provider, guestAddress, gateway } = options;
  const addresses = options.replicas.map(({ address }) => address);
  const { taps, uid, mac } = networkIdentity(name, addresses);
  const replicas = options.replicas.map((replica, index): ReplicaPlan => ({
    id: toReplicaId(index),
    name: replica.name,
    executes: index < executorsMax,
    tap: taps[index] ?? '',
    peerAddress: replica.address,
  }));
  const guest: GuestPlan = {
    image: image.name,
    kernel: image.kernel,
    initrd: image.initrd,
    kernelArguments: image.kernelArguments,
    readyMarker: image.readyMarker,
    port: image.port,
    machine: 'pc',
    memoryBytes,
    vcpus: options.execution.vcpus,
    accelerator,
    scans: false,
    mac,
    rtcBase: '',
  };
  const shared = sharedFacts({
    ...{ name, mode, durability, provider, guest, replicas, guestAddress, gateway },
    qemuBuild: qemu.buildId,
  });
  return {
    schema: 1,
    ...{ name, mode, modeReason: reason, durability, replicas, guest },
    clusterId: '',
    transport: 'fabric',
    provider,
    qemu: qemu.file,
    uid,
    network: { bridge: place.bridge, hostAddress: gateway, guestAddress, joined: true },
    hosts: { local: place.name, shared },
  };
}

function withOrigin(draft: VmPlan, { clusterId, rtcBase }: Origin): VmPlan {
  return { ...draft, clusterId, guest: { ...draft.guest, rtcBase } };
}

function replicaOf(plan: VmPlan, name: string): ReplicaPlan {
  const replica = plan.replicas.find((candidate) => candidate.name === name);
  if (replica === undefined)
    throw new GaiaError('GAIA_REPLICA_UNKNOWN', `VM ${plan.name} has no replica ${name}`);
  return replica;
}

/** Of a VM that was started here before; undefined: it was not. Throws where it was another one. */
function knownOrigin(draft: VmPlan): Origin | undefined {
  const { name, hosts } = draft;
  if (!existsSync(vmPlanFile(name))) return undefined;
  const known = readVmPlan(name);
  if (known.hosts === undefined)
    throw new GaiaError(
      'GAIA_VM_EXISTS',
      `A VM ${name} with all its replicas on this host exists already: choose another name, or stop it first`,
    );
  if (known.hosts.local !== hosts?.local)
    throw new GaiaError(
      'GAIA_VM_EXISTS',
      `Replica ${known.hosts.local} of VM ${name} has its state here, not ${hosts?.local ?? ''}: one host runs one replica`,
    );
  refuseChange(name, known.hosts.shared, hosts.shared);
  return { clusterId: known.clusterId, rtcBase: known.guest.rtcBase };
}

/** Another QEMU is for the peers to judge; all else is part of what the VM is. */
function refuseChange(name: string, before: SharedFacts, now: SharedFacts): void {
  const changed = Object.keys(now).find((key) => key !== 'qemu' && now[key] !== before[key]);
  if (changed === undefined) return;
  throw new GaiaError(
    'GAIA_VM_CHANGED',
    `VM ${name} was made with ${changed} ${before[changed] ?? ''}, and now it would be ${now[changed] ?? ''}: put that back, or end the VM on all hosts ("${selfCommand()} stop ${name}") and start it afresh`,
  );
}

/** The first replica's host makes it, the others ask there for as long as it takes. */
async function firstOrigin(draft: VmPlan, say: (line: string) => void, signal: AbortSignal): Promise<Origin> {
  const [first] = draft.replicas;
  const { hosts, name } = draft;
  if (first?.peerAddress === undefined || hosts === undefined || first.name === hosts.local)
    return { clusterId: newClusterId(), rtcBase: secondsOf(new Date()) };
  const { host, port } = first.peerAddress;
  const words = { ...hosts.shared, replica: hosts.local };
  for (let tries = 0; ; tries++) {
    signal.throwIfAborted();
    try {
      const question = { vm: name, clusterId: null, ask: 'origin', words };
      return parseOrigin(await askPeer(first.peerAddress, question, askTimeoutMs));
    } catch (error) {
      if (!(error instanceof PeerUnreachableError)) throw error;
      if (tries === 0) say(`waits for ${first.name} at ${host} port ${port}, where VM ${name} begins`);
      await delay(askAgainMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

function parseOrigin(value: unknown): Origin {
  const { clusterId, rtcBase } = (value ?? {}) as Partial<Origin>;
  if (typeof clusterId !== 'string' || !/^\d{1,20}$/.test(clusterId) || typeof rtcBase !== 'string')
    throw new GaiaError(
      'GAIA_ORIGIN',
      'The first replica told no origin: run the same version of gaia-vm on all hosts',
    );
  return { clusterId, rtcBase };
}

/** In the usual place, or a link there to the folder that the file names. */
function makeStateFolder(plan: VmPlan, { name, stateFolder: wanted }: ReplicaPlace): void {
  const { stateFolder } = replicaFiles(plan.name, name);
  if (wanted === null) {
    mkdirSync(stateFolder, { recursive: true, mode: 0o700 });
    return;
  }
  mkdirSync(wanted, { recursive: true, mode: 0o700 });
  mkdirSync(dirname(stateFolder), { recursive: true, mode: 0o700 });
  const found = lstatSync(stateFolder, { throwIfNoEntry: false });
  if (found === undefined) symlinkSync(wanted, stateFolder);
  else if (!found.isSymbolicLink() || readlinkSync(stateFolder) !== wanted)
    throw new GaiaError(
      'GAIA_STATE_FOLDER',
      `Replica ${name} has its state in ${found.isSymbolicLink() ? readlinkSync(stateFolder) : stateFolder}, not in ${wanted}: let stateDir say so, or move it while the agent does not run`,
    );
}
