/**
 * The guest on a network that the operator has: a bridge that is there before the VM and stays. No number is given out
 * for such a VM, so its taps, user and MAC follow from what it is called by.
 */
import { createHash } from 'node:crypto';
import { GaiaError } from './core/errors.ts';
import { bridgeExists, tapNames } from './io/bridge.ts';
import { vmUid } from './io/qemu/confinement.ts';

export interface OperatorNetwork {
  readonly bridge: string;
  /** Of the guest on the bridge's network, with prefix length. */
  readonly guestAddress: string;
  /** The guest's way out of that network; empty: none. */
  readonly gateway: string;
}

/** VMs with a bridge of their own have numbers below. */
const uidNumberMin = 1000;
const uidNumbers = 50_000;

export interface NetworkIdentity {
  /** One tap per replica. */
  readonly taps: readonly string[];
  readonly uid: number;
  /** The same for a VM that is started afresh: its neighbours may still know it. */
  readonly mac: string;
}

/** The same for the same words, on every host. */
export function networkIdentity(...words: readonly unknown[]): NetworkIdentity {
  const bytes = createHash('sha256').update(JSON.stringify(words)).digest();
  const hex = bytes.toString('hex');
  return {
    taps: tapNames(`gaia${hex.slice(0, 6)}`),
    uid: vmUid(uidNumberMin + (bytes.readUInt32LE(8) % uidNumbers)),
    mac: `52:54:00:${hex.slice(6, 8)}:${hex.slice(8, 10)}:${hex.slice(10, 12)}`,
  };
}

export async function requireBridge(bridge: string): Promise<void> {
  if (await bridgeExists(bridge)) return;
  throw new GaiaError(
    'GAIA_BRIDGE_MISSING',
    `This host has no bridge "${bridge}" for the guest's network: make it, or name another one`,
  );
}
