/** What is said of a VM whose replicas are on separate hosts, and what of it this host can tell to be wrong. */
import type { ExecutionWish } from './execution-choice.ts';
import { GaiaError } from './core/errors.ts';
import type { PeerAddress } from './io/transport/meeting.ts';
import type { FabricProviderName } from './vm-plan.ts';
import type { GuestImage } from './vm-start.ts';

export interface HostOptions {
  readonly name: string;
  readonly image: GuestImage;
  readonly memoryBytes: number;
  readonly execution: ExecutionWish;
  readonly durability: 'disk' | 'memory';
  readonly provider: FabricProviderName;
  /** Of the guest on the bridges' network, with prefix length. */
  readonly guestAddress: string;
  /** The guest's way out of that network; empty: none. */
  readonly gateway: string;
  /** In the order of their ids: the first two execute, the first one boots the guest. */
  readonly replicas: readonly ReplicaPlace[];
}

export interface ReplicaPlace {
  readonly name: string;
  /** Where it listens for the others. */
  readonly address: PeerAddress;
  /** A bridge that its host has already. */
  readonly bridge: string;
  /** Where its host keeps its state; null: in the usual place. */
  readonly stateFolder: string | null;
}

/** The replica that is to run here, on a host with the addresses `own`: by its name, or the one with such an address. */
export function localReplica(
  { name: vm, replicas }: HostOptions,
  wanted: string | undefined,
  own: ReadonlySet<string>,
): ReplicaPlace {
  const addresses = [...own].join(', ');
  if (wanted === undefined) {
    const here = replicas.filter(({ address }) => own.has(address.host));
    if (here.length === 1 && here[0] !== undefined) return here[0];
    throw new GaiaError(
      'GAIA_REPLICA_LOCAL',
      `${here.length === 0 ? 'No replica' : 'More than one replica'} of VM ${vm} has an address of this host (${addresses}): give --replica, or mend the addresses`,
    );
  }
  const replica = replicas.find(({ name }) => name === wanted);
  if (replica === undefined)
    throw new GaiaError(
      'GAIA_REPLICA_UNKNOWN',
      `VM ${vm} has no replica "${wanted}": it has ${replicas.map(({ name }) => name).join(', ')}`,
    );
  if (!own.has(replica.address.host))
    throw new GaiaError(
      'GAIA_REPLICA_ADDRESS',
      `Replica ${wanted} has the address ${replica.address.host}, and this host has ${addresses}: run it on its own host, or mend its address`,
    );
  return replica;
}
