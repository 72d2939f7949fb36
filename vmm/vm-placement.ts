/**
 * Where a VM that is started here is on its machine: the replicas' taps and user, the network, the ports between them.
 * Guarantee: what is made for it outside its own folders is taken away by `undo`.
 */
import { toReplicaId } from './core/ids.ts';
import { Bridge, tapNames } from './io/bridge.ts';
import { freePorts } from './io/free-ports.ts';
import { vmUid } from './io/qemu/confinement.ts';
import { networkIdentity, requireBridge, type OperatorNetwork } from './operator-network.ts';
import type { ReplicaPlan, VmPlan } from './vm-plan.ts';

export const replicaNames = ['alpha', 'beta', 'gamma'] as const;
/** All replicas of a VM that is started here are on this machine. */
const fabricHost = '127.0.0.1';

/** Where a VM is on its machine, and on which network. */
export interface Placement {
  readonly parts: Pick<VmPlan, 'uid' | 'replicas' | 'network'>;
  /** The guest's, on the operator's network; elsewhere any. */
  readonly mac?: string;
  /** Takes away what was made for it. */
  undo(): Promise<void>;
}

export async function place(
  name: string,
  network: OperatorNetwork | null,
  report: (text: string) => void,
): Promise<Placement> {
  if (network === null) {
    report('making the bridge');
    return ofItsOwn(await Bridge.create());
  }
  const { bridge, guestAddress, gateway } = network;
  await requireBridge(bridge);
  const { taps, uid, mac } = networkIdentity(name, bridge, guestAddress);
  return {
    parts: {
      uid,
      replicas: replicaPlans(taps),
      network: { bridge, guestAddress, hostAddress: gateway, joined: true },
    },
    mac,
    undo: () => Promise.resolve(),
  };
}

function ofItsOwn(bridge: Bridge): Placement {
  const { name, number, hostAddress, guestAddress } = bridge;
  return {
    parts: {
      uid: vmUid(number),
      replicas: replicaPlans(tapNames(name)),
      network: { bridge: name, hostAddress, guestAddress },
    },
    undo: () => bridge.remove(),
  };
}

function replicaPlans(taps: readonly string[]): ReplicaPlan[] {
  return replicaNames.map((name, index) => ({
    ...{ id: toReplicaId(index), name, executes: index < 2 },
    tap: taps[index] ?? '',
  }));
}

/** The plan, with a port of the loopback for each replica where they meet over a fabric. */
export async function reachable(plan: VmPlan): Promise<VmPlan> {
  if (plan.transport === 'shm') return plan;
  const ports = await freePorts(fabricHost, plan.replicas.length);
  const replicas = plan.replicas.map((replica, index) => {
    return { ...replica, peerAddress: { host: fabricHost, port: ports[index] ?? 0 } };
  });
  return { ...plan, replicas };
}
