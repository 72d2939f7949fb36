/** What the rows of bench falcon come to: the headline, and plots like the proposal's Figure 3. */
import { headlineOf, type Measurements } from '../measurements.ts';
import type { Plot } from '../plot.ts';
import { diskVariant, memoryVariant, payloads, rowName, variantName } from './variants.ts';

const peerNames = ['etcd', 'ZooKeeper'] as const;

function peerSystem(peer: string, sync: string): string {
  return `${peer} 3 members, ${sync}`;
}

export function falconHeadline(measurements: Measurements): Record<string, number> {
  const p50 = (system: string): number | undefined =>
    measurements.medianOf(rowName.latency(system, 64, 'p50'));
  const rate = (system: string): number | undefined => measurements.medianOf(rowName.rate(system));
  const memory = variantName(memoryVariant);
  const disk = variantName(diskVariant);
  const fabric = variantName({ ...memoryVariant, transport: 'fabric-tcp' });
  const unsynced = peerNames
    .map((peer) => p50(peerSystem(peer, 'without fsync')))
    .filter((value) => value !== undefined);
  const best = unsynced.length === 0 ? undefined : Math.min(...unsynced);
  const connection = measurements.medianOf(rowName.connection);
  const ownBest = best === undefined || connection === undefined ? undefined : best - connection;
  const etcd = peerSystem('etcd', 'with fsync');
  return headlineOf({
    shm_3_64b_p50_us: p50(memory),
    shm_3_64b_p99_us: measurements.medianOf(rowName.latency(memory, 64, 'p99')),
    shm_3_1500b_p50_us: measurements.medianOf(rowName.latency(memory, 1500, 'p50')),
    shm_vs_raw_ratio: measurements.ratio(rowName.latency(memory, 64, 'p50'), rowName.raw),
    fabric_tcp_3_64b_p50_us: p50(fabric),
    fabric_tcp_vs_transport_ratio: measurements.ratio(
      rowName.latency(fabric, 64, 'p50'),
      rowName.transport('fabric-tcp'),
    ),
    memory_speedup_vs_best_peer_ratio: quotient(best, p50(memory)),
    memory_speedup_vs_best_peer_less_connection_ratio: quotient(ownBest, p50(memory)),
    disk_speedup_vs_etcd_ratio: quotient(p50(etcd), p50(disk)),
    disk_throughput_vs_etcd_ratio: quotient(rate(disk), rate(etcd)),
    leader_change_ms_p50: measurements.medianOf(rowName.change('leader killed, shm')),
    leader_frozen_ms_p50: measurements.medianOf(rowName.change('leader frozen, shm')),
    leader_killed_fabric_ms_p50: measurements.medianOf(rowName.change('leader killed, fabric-tcp')),
  });
}

function quotient(above: number | undefined, below: number | undefined): number | undefined {
  return above === undefined || below === undefined ? undefined : above / below;
}

/** Latency by the number of replicas, as in the proposal's Figure 3, and all systems of three members side by side. */
export function falconPlots(measurements: Measurements, replicas: readonly number[]): Plot[] {
  const points = (system: (count: number) => string, bytes: number, counts: readonly number[]) =>
    counts.flatMap((count): (readonly [number, number])[] => {
      const value = measurements.medianOf(rowName.latency(system(count), bytes, 'p50'));
      return value === undefined ? [] : [[count, value]];
    });
  const own = (['shm', 'fabric-tcp'] as const).flatMap((transport) =>
    payloads.map((bytes) => ({
      label: `Falcon ${transport}, memory, ${bytes} B`,
      points: points(
        (count) => variantName({ ...memoryVariant, transport, replicas: count }),
        bytes,
        replicas,
      ),
    })),
  );
  const theirs = peerNames.map((peer) => ({
    label: `${peer}, without fsync, 64 B`,
    points: points(() => peerSystem(peer, 'without fsync'), 64, [3]),
  }));
  const bars = measurements
    .rows()
    .filter(({ name }) => name.endsWith(', 64 B, p50') && / 3 (replicas|members)/.test(name))
    .flatMap(({ name, summary }) =>
      summary === null
        ? []
        : [
            {
              label: name.replace(', 64 B, p50', '').replace('Falcon ', '').replace(' 3 replicas', ''),
              value: summary.p50,
              min: summary.min,
              max: summary.max,
            },
          ],
    );
  return [
    {
      kind: 'lines',
      title: 'Propose to commit, p50, two threads, spinning',
      unit: 'µs',
      xTitle: 'replicas',
      yScale: 'powers of ten',
      lines: [...own, ...theirs].filter((line) => line.points.length > 0),
    },
    { kind: 'bars', title: 'Three replicas, 64 B, p50', unit: 'µs', bars },
  ];
}
