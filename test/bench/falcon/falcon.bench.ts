/**
 * What agreement costs: from propose to commit in Falcon, beside etcd and ZooKeeper on the same machine in the same
 * run, and beside the bare round trip through memory. All systems take turns within each run.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bench, BenchOptions, Outcome } from '../bench.ts';
import { Measurements } from '../measurements.ts';
import { Cluster } from './cluster.ts';
import { etcdVersion, startEtcd } from './etcd.ts';
import { falconHeadline, falconPlots } from './falcon-results.ts';
import { leaderChangeMs, type LeaderEnd } from './leader-change.ts';
import type { PeerCluster } from './peer.ts';
import { percentile } from './percentile.ts';
import { rawRoundTripsUs } from './raw-round-trip.ts';
import { tcpRoundTripsUs } from './tcp-round-trip.ts';
import { transportRoundTripsUs } from './transport-round-trip.ts';
import { payloads, rowName, shares, variantName, variantsFor, type Variant } from './variants.ts';
import { startZookeeper, zookeeperVersion } from './zookeeper.ts';

interface Sizes {
  readonly runs: number;
  readonly replicas: readonly number[];
  readonly samples: number;
  /** Of a latency, once to warm up and once to measure, and of a throughput. */
  readonly seconds: number;
  readonly peerSamples: number;
  readonly peerSeconds: number;
  readonly changes: number;
}

const fullSizes: Sizes = {
  ...{ runs: 3, replicas: [3, 5, 7, 9], samples: 20_000, seconds: 1 },
  ...{ peerSamples: 500, peerSeconds: 2, changes: 20 },
};
const quickSizes: Sizes = {
  ...{ runs: 1, replicas: [3, 5], samples: 20_000, seconds: 1 },
  ...{ peerSamples: 200, peerSeconds: 1, changes: 5 },
};
/** Records on their way at once when throughput is measured; as many clients of a peer have one each. */
const window = 256;

const peers = [
  { name: 'etcd', package: 'etcd-server', start: startEtcd, version: etcdVersion },
  { name: 'ZooKeeper', package: 'zookeeper', start: startZookeeper, version: zookeeperVersion },
] as const;
const syncs = [
  { name: 'with fsync', fsync: true },
  { name: 'without fsync', fsync: false },
] as const;
const leaderEnds: readonly (LeaderEnd & { readonly name: string })[] = [
  { name: 'leader killed, shm', signal: 'SIGKILL', transport: 'shm' },
  { name: 'leader frozen, shm', signal: 'SIGSTOP', transport: 'shm' },
  { name: 'leader killed, fabric-tcp', signal: 'SIGKILL', transport: 'fabric-tcp' },
];

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

  async measure(): Promise<void> {
    const { progress } = this.#options;
    const { runs, replicas } = this.#sizes;
    for (let run = 1; run <= runs; run++) {
      const say = (what: string): void => progress(`run ${run} of ${runs}: ${what}`);
      say('bare round trips');
      await this.#bareRoundTrips();
      for (const variant of variantsFor(replicas)) {
        say(variantName(variant));
        await this.#falcon(variant, run);
      }
      for (const peer of peers.filter(({ version }) => version() !== undefined)) {
        for (const { name, fsync } of syncs) {
          say(`${peer.name} ${name}`);
          const folder = await this.#home(`${peer.name}-${name.replaceAll(' ', '-')}-${run}`);
          await this.#peer(`${peer.name} 3 members, ${name}`, () =>
            peer.start(folder, fsync, this.#options.signal),
          );
        }
      }
    }
    await this.#leaderChanges();
  }

  async #bareRoundTrips(): Promise<void> {
    const { samples } = this.#sizes;
    const p50 = async (name: string, measure: () => Promise<Float64Array>): Promise<void> => {
      await this.measurements.attempt(name, 'µs', this.#options.signal, async () =>
        percentile(await measure(), 0.5),
      );
    };
    await p50(rowName.raw, () => rawRoundTripsUs(samples, samples));
    await p50(rowName.connection, () => tcpRoundTripsUs(samples / 4, samples / 4));
    for (const transport of ['shm', 'fabric-tcp'] as const)
      await p50(rowName.transport(transport), () => transportRoundTripsUs(transport, samples, samples / 4));
  }

  async #leaderChanges(): Promise<void> {
    const { progress, signal } = this.#options;
    const { changes } = this.#sizes;
    for (let change = 1; change <= changes; change++) {
      progress(`leader change ${change} of ${changes}`);
      for (const end of leaderEnds)
        await this.measurements.attempt(rowName.change(end.name), 'ms', signal, () =>
          leaderChangeMs(this.#folder, end),
        );
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
    const { samples, seconds } = this.#sizes;
    const name = variantName(variant);
    const folder = await this.#home(`${name.replaceAll(/\W+/g, '-')}-${run}`);
    await measurements.attempt(rowName.rate(name), 'records/s', signal, async () => {
      const cluster = await Cluster.start({ ...variant, folder });
      try {
        for (const bytes of payloads)
          this.#addShares(name, bytes, await cluster.latenciesUs(bytes, samples, seconds));
        return await cluster.recordsPerSecond(64, seconds, window);
      } finally {
        await cluster.stop();
      }
    });
    // The logs of many clusters would fill a small disk.
    await rm(folder, { recursive: true });
  }

  #addShares(name: string, bytes: number, timesUs: Float64Array): void {
    for (const [share, part] of shares)
      this.measurements.add(rowName.latency(name, bytes, share), 'µs', percentile(timesUs, part));
  }

  async #peer(name: string, start: () => Promise<PeerCluster>): Promise<void> {
    const { peerSamples, peerSeconds } = this.#sizes;
    await this.measurements.attempt(rowName.rate(name), 'records/s', this.#options.signal, async () => {
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
          this.#addShares(name, bytes, times);
        }
        return await putsPerSecond(cluster, peerSeconds);
      } finally {
        await cluster.stop();
      }
    });
  }
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

function peerVersions(): Record<string, string> {
  const versions: Record<string, string> = {};
  for (const { name, version } of peers) {
    const found = version();
    if (found !== undefined) versions[name] = found;
  }
  return versions;
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
      return {
        settings: {
          quick: options.quick,
          ...{ runs: sizes.runs, samplesMax: sizes.samples, seconds: sizes.seconds },
          ...{ peerSamples: sizes.peerSamples, window, leaderChanges: sizes.changes },
          latency:
            'from propose to commit at the leader, one record at a time, both where an agent runs its guest',
          twoThreads: 'the leader on one thread, all backups stepped in turn by another',
          threadEach: 'each replica on a thread of its own, which this machine may have no processor for',
          blocking: 'waits in poll after 20 µs without work, as the agents do; spinning never waits',
          peers:
            'three members on loopback, one client on one connection to the leader (etcd: gRPC Put; ZooKeeper: setData), whose round trip is part of what is measured; without fsync: --unsafe-no-fsync, forceSync=no',
          leftOut: peers
            .filter(({ version }) => version() === undefined)
            .map((peer) => `${peer.name}: not installed (apt-get install ${peer.package})`),
        },
        versions: peerVersions(),
        rows: run.measurements.rows(),
        headline: falconHeadline(run.measurements),
        plots: falconPlots(run.measurements, sizes.replicas),
      };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};
