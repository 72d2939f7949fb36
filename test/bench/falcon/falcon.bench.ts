/**
 * What agreement costs: from propose to commit in Falcon, beside etcd and ZooKeeper on the same machine in the same
 * run, and beside the bare round trip through memory. All systems take turns within each run.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bench, BenchOptions, Outcome } from '../bench.ts';
import { headlineOf, Measurements } from '../measurements.ts';
import type { Plot } from '../plot.ts';
import { Cluster, type ClusterSettings } from './cluster.ts';
import { etcdVersion, startEtcd } from './etcd.ts';
import { leaderChangeMs } from './leader-change.ts';
import type { PeerCluster } from './peer.ts';
import { percentile } from './percentile.ts';
import { rawRoundTripsUs } from './raw-round-trip.ts';
import { startZookeeper, zookeeperIsInstalled } from './zookeeper.ts';

interface Sizes {
  readonly runs: number;
  readonly replicas: readonly number[];
  readonly samples: number;
  readonly diskSamples: number;
  readonly peerSamples: number;
  readonly seconds: number;
  readonly changes: number;
}

const fullSizes: Sizes = {
  ...{ runs: 3, replicas: [3, 5, 7, 9], samples: 20_000, diskSamples: 500 },
  ...{ peerSamples: 500, seconds: 2, changes: 20 },
};
const quickSizes: Sizes = {
  ...{ runs: 1, replicas: [3, 5], samples: 5_000, diskSamples: 100 },
  ...{ peerSamples: 200, seconds: 1, changes: 5 },
};
const payloads = [64, 1500] as const;
/** Records on their way at once when throughput is measured; a client pool of etcd's has so many requests. */
const window = 256;

interface Variant extends Omit<ClusterSettings, 'folder'> {
  readonly samples: number;
}

const peers = [
  { name: 'etcd', start: startEtcd, installed: () => etcdVersion() !== undefined },
  { name: 'ZooKeeper', start: startZookeeper, installed: zookeeperIsInstalled },
] as const;
const syncs = [
  { name: 'with fsync', fsync: true },
  { name: 'without fsync', fsync: false },
] as const;

const row = {
  latency: (system: string, bytes: number, share: string) => `${system}, ${bytes} B, ${share}`,
  rate: (system: string) => `${system}, 64 B, throughput`,
  raw: 'bare round trip through memory, 64 B and 8 B back, p50',
  change: 'leader killed to new leader serving',
} as const;
const shares = [
  ['p50', 0.5],
  ['p99', 0.99],
  ['p99.9', 0.999],
] as const;

function nameOf({ transport, replicas, durability, threads, waiting }: Variant): string {
  return `Falcon ${transport} ${replicas} replicas, ${durability}, ${threads}, ${waiting}`;
}

class FalconRun {
  readonly measurements = new Measurements();
  readonly #options: BenchOptions;
  readonly #sizes: Sizes;
  readonly #folder: string;

  constructor(options: BenchOptions, sizes: Sizes, folder: string) {
    this.#options = options;
    this.#sizes = sizes;
    this.#folder = folder;
  }

  get variants(): Variant[] {
    const { replicas, samples, diskSamples } = this.#sizes;
    const two = { threads: 'two threads', waiting: 'spinning' } as const;
    const memory = { durability: 'memory', samples } as const;
    return [
      ...replicas.map((count): Variant => ({ transport: 'shm', replicas: count, ...memory, ...two })),
      { transport: 'shm', replicas: 3, ...memory, threads: 'thread each', waiting: 'blocking' },
      ...replicas.map((count): Variant => ({ transport: 'fabric-tcp', replicas: count, ...memory, ...two })),
      {
        transport: 'shm',
        replicas: 3,
        durability: 'disk',
        samples: diskSamples,
        ...two,
        waiting: 'blocking',
      },
    ];
  }

  async measure(): Promise<void> {
    const { progress, signal } = this.#options;
    const { runs, changes } = this.#sizes;
    for (let run = 1; run <= runs; run++) {
      const say = (what: string): void => progress(`run ${run} of ${runs}: ${what}`);
      say('bare round trip');
      await this.measurements.attempt(row.raw, 'µs', signal, async () => {
        return percentile(await rawRoundTripsUs(this.#sizes.samples, this.#sizes.samples), 0.5);
      });
      for (const variant of this.variants) {
        say(nameOf(variant));
        await this.#falcon(variant, run);
      }
      for (const peer of peers.filter(({ installed }) => installed())) {
        for (const { name, fsync } of syncs) {
          say(`${peer.name} ${name}`);
          const folder = await this.#home(`${peer.name}-${name.replaceAll(' ', '-')}-${run}`);
          await this.#peer(`${peer.name} 3 members, ${name}`, () => peer.start(folder, fsync, signal));
        }
      }
    }
    for (let change = 1; change <= changes; change++) {
      progress(`leader change ${change} of ${changes}`);
      await this.measurements.attempt(row.change, 'ms', signal, () => leaderChangeMs(this.#folder));
    }
  }

  async #home(name: string): Promise<string> {
    const folder = join(this.#folder, name);
    await mkdir(folder, { recursive: true });
    return folder;
  }

  async #falcon(variant: Variant, run: number): Promise<void> {
    const { measurements } = this;
    const { signal } = this.#options;
    const name = nameOf(variant);
    const folder = await this.#home(`${name.replaceAll(/\W+/g, '-')}-${run}`);
    await measurements.attempt(row.rate(name), 'records/s', signal, async () => {
      const cluster = await Cluster.start({ ...variant, folder });
      try {
        for (const bytes of payloads) {
          const times = await cluster.latenciesUs(bytes, variant.samples, variant.samples);
          for (const [share, part] of shares)
            measurements.add(row.latency(name, bytes, share), 'µs', percentile(times, part));
        }
        return await cluster.recordsPerSecond(64, this.#sizes.seconds, window);
      } finally {
        await cluster.stop();
      }
    });
  }

  async #peer(name: string, start: () => Promise<PeerCluster>): Promise<void> {
    const { measurements } = this;
    const { signal } = this.#options;
    const { peerSamples, seconds } = this.#sizes;
    await measurements.attempt(row.rate(name), 'records/s', signal, async () => {
      const cluster = await start();
      try {
        for (const bytes of payloads) {
          const value = new Uint8Array(bytes).fill(0x5a);
          const times = new Float64Array(peerSamples);
          for (let sample = -peerSamples; sample < peerSamples; sample++) {
            const began = performance.now();
            await cluster.put(value);
            if (sample >= 0) times[sample] = (performance.now() - began) * 1000;
          }
          for (const [share, part] of shares)
            measurements.add(row.latency(name, bytes, share), 'µs', percentile(times, part));
        }
        return await putsPerSecond(cluster, seconds);
      } finally {
        await cluster.stop();
      }
    });
  }

  headline(): Record<string, number> {
    const { measurements } = this;
    const of = (variant: Variant | undefined, share: string): string =>
      variant === undefined ? '' : row.latency(nameOf(variant), 64, share);
    const shm = this.variants.find(({ replicas }) => replicas === 3);
    const disk = this.variants.find(({ durability }) => durability === 'disk');
    const p50 = measurements.medianOf(of(shm, 'p50'));
    const diskP50 = measurements.medianOf(of(disk, 'p50'));
    const diskRate = disk === undefined ? undefined : measurements.medianOf(row.rate(nameOf(disk)));
    const peerP50 = (peer: string, sync: string): number | undefined =>
      measurements.medianOf(row.latency(`${peer} 3 members, ${sync}`, 64, 'p50'));
    const unsynced = peers
      .map(({ name }) => peerP50(name, 'without fsync'))
      .filter((value) => value !== undefined);
    const etcdSynced = peerP50('etcd', 'with fsync');
    const etcdRate = measurements.medianOf(row.rate('etcd 3 members, with fsync'));
    return headlineOf({
      shm_3_64b_p50_us: p50,
      shm_3_64b_p99_us: measurements.medianOf(of(shm, 'p99')),
      shm_vs_raw_ratio: measurements.ratio(of(shm, 'p50'), row.raw),
      memory_speedup_vs_best_peer_ratio:
        unsynced.length === 0 ? undefined : quotient(Math.min(...unsynced), p50),
      disk_speedup_vs_etcd_ratio: quotient(etcdSynced, diskP50),
      disk_throughput_vs_etcd_ratio: quotient(diskRate, etcdRate),
      leader_change_ms_p50: measurements.medianOf(row.change),
    });
  }

  /** Like the proposal's Figure 3: latency by the number of replicas. */
  plots(): Plot[] {
    const { measurements } = this;
    const lines = (['shm', 'fabric-tcp'] as const).flatMap((transport) =>
      payloads.map((bytes) => ({
        label: `${transport}, ${bytes} B`,
        points: this.variants
          .filter((variant) => variant.transport === transport && variant.waiting === 'spinning')
          .flatMap((variant): (readonly [number, number])[] => {
            const value = measurements.medianOf(row.latency(nameOf(variant), bytes, 'p50'));
            return value === undefined ? [] : [[variant.replicas, value]];
          }),
      })),
    );
    const bars = measurements
      .rows()
      .filter(
        ({ name }) =>
          name.endsWith(', 64 B, p50') && (name.includes(' 3 replicas') || name.includes('members')),
      )
      .flatMap(({ name, summary }) =>
        summary === null
          ? []
          : [
              {
                label: name.replace(', 64 B, p50', ''),
                value: summary.p50,
                min: summary.min,
                max: summary.max,
              },
            ],
      );
    return [
      { kind: 'lines', title: 'Propose to commit, p50, two threads', unit: 'µs', xTitle: 'replicas', lines },
      { kind: 'bars', title: 'Three replicas, 64 B, p50', unit: 'µs', bars },
    ];
  }
}

function quotient(above: number | undefined, below: number | undefined): number | undefined {
  return above === undefined || below === undefined ? undefined : above / below;
}

/** `window` clients on one connection, each with one put on its way. */
async function putsPerSecond(cluster: PeerCluster, seconds: number): Promise<number> {
  const value = new Uint8Array(64).fill(0x5a);
  const began = performance.now();
  let puts = 0;
  const client = async (): Promise<void> => {
    while (performance.now() - began < seconds * 1000) {
      await cluster.put(value);
      puts++;
    }
  };
  await Promise.all(Array.from({ length: window }, () => client()));
  return (puts * 1000) / (performance.now() - began);
}

export const falcon: Bench = {
  name: 'falcon',
  describe: 'what agreement costs, beside etcd and ZooKeeper',
  async run(options: BenchOptions): Promise<Outcome> {
    const sizes = options.quick ? quickSizes : fullSizes;
    const folder = await mkdtemp(join(tmpdir(), 'gaia-bench-'));
    try {
      const run = new FalconRun(options, sizes, folder);
      await run.measure();
      const etcd = etcdVersion();
      return {
        settings: {
          quick: options.quick,
          ...{ runs: sizes.runs, samples: sizes.samples, diskSamples: sizes.diskSamples },
          ...{ peerSamples: sizes.peerSamples, window, leaderChanges: sizes.changes },
          twoThreads:
            'the leader on one thread, all backups stepped in turn by another, both spinning with memory durability',
          threadEach: 'each replica on a thread of its own that blocks in poll after 20 µs without work',
          peers:
            'three members on loopback, one client on one connection to the leader (etcd: gRPC Put; ZooKeeper: setData); without fsync: --unsafe-no-fsync, forceSync=no',
          leftOut: peers.filter(({ installed }) => !installed()).map(({ name }) => `${name}: not installed`),
        },
        versions: etcd === undefined ? {} : { etcd },
        rows: run.measurements.rows(),
        headline: run.headline(),
        plots: run.plots(),
      };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};
