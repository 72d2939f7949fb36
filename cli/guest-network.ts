/** The guest on a network of the operator's, as flags and files say it. */
import type { OperatorNetwork } from '../vmm/index.ts';
import { UsageError } from './usage-error.ts';

interface NetworkWords {
  readonly bridge?: string | undefined;
  readonly address?: string | undefined;
  readonly gateway?: string | undefined;
}

/** Null when it says nothing of a bridge. `where`: the file, or the command, that says it. */
export function operatorNetwork(
  { bridge, address, gateway = '' }: NetworkWords,
  where: string,
): OperatorNetwork | null {
  if (bridge === undefined && address === undefined) return null;
  if (bridge === undefined)
    throw new UsageError(
      `${where} gives the guest an address, and names no bridge: a bridge of the VM's own has its own`,
    );
  return { bridge, guestAddress: guestAddress(address, where), gateway: guestGateway(gateway, where) };
}

/** With its prefix length. */
export function guestAddress(address: string | undefined, where: string): string {
  if (address === undefined)
    throw new UsageError(
      `${where} lacks "address", the guest's own on the network of the bridge, such as 192.0.2.10/24`,
    );
  const [host = '', prefix = ''] = address.split('/');
  if (!isIpv4(host) || !/^\d{1,2}$/.test(prefix) || Number(prefix) > 32)
    throw new UsageError(
      `${where} gives the guest the address ${address}, which is none: write it as 192.0.2.10/24`,
    );
  return address;
}

export function guestGateway(gateway: string, where: string): string {
  if (gateway !== '' && !isIpv4(gateway))
    throw new UsageError(
      `${where} gives the gateway ${gateway}, which is no address: write it as 192.0.2.254`,
    );
  return gateway;
}

export function isIpv4(text: string): boolean {
  const parts = text.split('.');
  return parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255);
}
