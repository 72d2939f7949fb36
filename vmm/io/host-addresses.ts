/** The IPv4 addresses of this host, with those of links that have no carrier yet: an agent may start before its link. */
import { runCommand } from './command.ts';

interface Link {
  readonly addr_info: readonly { readonly local: string }[];
}

export async function hostAddresses(): Promise<ReadonlySet<string>> {
  const links = JSON.parse(await runCommand('ip', ['-4', '-json', 'address', 'show'])) as readonly Link[];
  return new Set(links.flatMap(({ addr_info: addresses }) => addresses.map(({ local }) => local)));
}
