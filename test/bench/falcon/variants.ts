/** The set-ups of Falcon that the bench measures, and what their rows are called. */
import type { ClusterSettings } from './cluster.ts';

export type Variant = Omit<ClusterSettings, 'folder'>;

const transports = ['shm', 'fabric-tcp'] as const;
const durabilities = ['memory', 'disk'] as const;
const waitings = ['spinning', 'blocking'] as const;
const fewest = 3;

/** With the fewest replicas everything; with more, memory while spinning and disk while blocking. */
export function variantsFor(replicas: readonly number[]): Variant[] {
  return [
    ...replicas.flatMap((count) =>
      transports.flatMap((transport) =>
        durabilities.flatMap((durability) =>
          waitings
            .filter((waiting) => count === fewest || (durability === 'memory') === (waiting === 'spinning'))
            .map((waiting): Variant => ({
              transport,
              replicas: count,
              durability,
              threads: 'two threads',
              waiting,
            })),
        ),
      ),
    ),
    ...transports.flatMap((transport) =>
      waitings.map((waiting): Variant => ({
        transport,
        replicas: fewest,
        durability: 'memory',
        threads: 'thread each',
        waiting,
      })),
    ),
  ];
}

export function variantName({ transport, replicas, durability, threads, waiting }: Variant): string {
  return `Falcon ${transport} ${replicas} replicas, ${durability}, ${threads}, ${waiting}`;
}

/** The one that shows the protocol's own cost, and the one that a disk is compared by. */
export const memoryVariant: Variant = {
  transport: 'shm',
  replicas: fewest,
  durability: 'memory',
  threads: 'two threads',
  waiting: 'spinning',
};
export const diskVariant: Variant = { ...memoryVariant, durability: 'disk', waiting: 'blocking' };

export const payloads = [64, 1500] as const;

export const shares = [
  ['p50', 0.5],
  ['p99', 0.99],
  ['p99.9', 0.999],
] as const;

export const rowName = {
  latency: (system: string, bytes: number, share: string) => `${system}, ${bytes} B, ${share}`,
  rate: (system: string) => `${system}, 64 B, throughput`,
  raw: 'bare round trip through memory, 64 B and 8 B back, p50',
  connection: 'bare round trip over a TCP connection on loopback, 64 B and 8 B back, p50',
  transport: (transport: string) => `transport ${transport} without consensus, 64 B and an ack back, p50`,
  change: (what: string) => `${what} to new leader serving`,
} as const;
