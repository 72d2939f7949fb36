/** Opens the transport that a VM's plan names. */
import type { ReplicaId } from '../../core/ids.ts';
import { FabricTransport, type FabricSettings } from './fabric.ts';
import { ShmTransport } from './shm.ts';
import type { Transport } from './transport.ts';

export type TransportSettings = { readonly kind: 'shm' } | ({ readonly kind: 'fabric' } & FabricSettings);

/** Throws `TransportError` when this machine cannot. */
export function openTransport(self: ReplicaId, settings: TransportSettings): Transport {
  return settings.kind === 'shm' ? new ShmTransport(self) : new FabricTransport(self, settings);
}
