/**
 * How long it takes to serve: each image in a bare VM, and the demo image on three replicas from `gaia-vm start` to
 * PROTECTED. Beside it what a bare Redis VM answers, the measure for later benches, and what an idle protected VM
 * costs. All systems take turns within each run, in network namespaces of the bench's own.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { buildImage, type Image } from '../../images/index.ts';
import { BrokenEnvironmentError, requireQemu, type VmStatus } from '../../vmm/index.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { TestVm } from '../framework/test-vm.ts';
import { BareGuest, bareGuestAddress, bareGuestTap, bareHostAddress } from './bare-guest.ts';
import type { Bench, BenchOptions, Outcome, Settings } from './bench.ts';
import { coldStartS } from './cold-start.ts';
import { headlineOf, Measurements } from './measurements.ts';
import type { Plot } from './plot.ts';
import { cpuPercent } from './process-cpu.ts';
import { redisBenchmarkVersion, redisRequestsPerSecond } from './redis-benchmark.ts';

const images = ['memcached', 'redis', 'nginx', 'mariadb', 'node-sqlite'] as const;
const quickImages = ['memcached', 'redis'] as const;
const systemImage = 'memcached';
const idleMs = 10_000;
/** What a transfer of state leaves to do is done by then. */
const settleMs = 2_000;

const row = {
  ready: (image: string) => `${image} ready`,
  rate: (operation: string) => `redis ${operation}, bare VM`,
  startWarm: 'gaia-vm start to PROTECTED, warm',
  startCold: 'gaia-vm start to PROTECTED, cold',
  startRatio: 'gaia-vm start ÷ bare memcached ready',
  idle: 'processor time of an idle protected VM',
} as const;

interface Sizes {
  readonly runs: number;
  readonly images: readonly string[];
  readonly redisRequests: number;
  readonly redisConnections: number;
}

const fullSizes: Sizes = { runs: 5, images, redisRequests: 50_000, redisConnections: 50 };
const quickSizes: Sizes = { runs: 3, images: quickImages, redisRequests: 10_000, redisConnections: 50 };

class BootRun {
  readonly measurements = new Measurements();
  readonly #options: BenchOptions;
  readonly #sizes: Sizes;
  readonly #namespace: NetworkNamespace;
  readonly #folder: string;

  constructor(options: BenchOptions, sizes: Sizes, namespace: NetworkNamespace, folder: string) {
    this.#options = options;
    this.#sizes = sizes;
    this.#namespace = namespace;
    this.#folder = folder;
  }

  async measure(): Promise<void> {
    const { progress, cold, signal } = this.#options;
    const { runs } = this.#sizes;
    const built: Image[] = [];
    for (const name of this.#sizes.images) {
      progress(`image ${name}`);
      built.push(await buildImage(name, { signal }));
    }
    for (let run = 1; run <= runs; run++) {
      for (const image of built) {
        progress(`run ${run} of ${runs}: bare ${image.name}`);
        await this.#bootBare(image);
      }
      progress(`run ${run} of ${runs}: gaia-vm start`);
      await this.#startProtected();
    }
    const redis = built.find(({ name }) => name === 'redis');
    if (redis !== undefined) await this.#loadRedis(redis);
    if (cold) {
      progress('gaia-vm start from an empty cache');
      await this.measurements.attempt(row.startCold, 's', signal, () => coldStartS(this.#namespace, signal));
    }
  }

  async #bootBare(image: Image): Promise<void> {
    const { signal } = this.#options;
    await this.measurements.attempt(row.ready(image.name), 's', signal, async () => {
      const guest = await BareGuest.boot(image, this.#namespace, this.#folder, signal);
      await guest.stop();
      return guest.readyS;
    });
  }

  /** A whole VM by the real command line: how long its start takes, then what it costs while nobody asks. */
  async #startProtected(): Promise<void> {
    const { measurements } = this;
    const { signal, progress } = this.#options;
    const vm = await TestVm.prepare('bench', this.#namespace);
    const started: VmStatus[] = [];
    try {
      await measurements.attempt(row.startWarm, 's', signal, async () => {
        const began = performance.now();
        started.push(await vm.start('--replicas', '3', '--image', systemImage));
        return (performance.now() - began) / 1000;
      });
      this.#addRatio();
      for (const status of started) {
        progress('idle protected VM');
        await measurements.attempt(row.idle, '% of a core', signal, async () => {
          await delay(settleMs, undefined, { signal });
          const percent = await cpuPercent(processesOf(status), idleMs, signal);
          const { protection, reason } = await vm.status();
          if (protection !== 'PROTECTED') throw new Error(`The VM became ${protection}: ${reason}`);
          return percent;
        });
      }
    } finally {
      await vm.remove();
    }
  }

  /** Of neighbours in time, where both came about in this run. */
  #addRatio(): void {
    const rows = this.measurements.rows();
    const of = (name: string) => rows.find((candidate) => candidate.name === name)?.values ?? [];
    const [starts, bare] = [of(row.startWarm), of(row.ready(systemImage))];
    const [start, ready] = [starts.at(-1), bare.at(-1)];
    if (starts.length !== bare.length || start === undefined || ready === undefined) return;
    this.measurements.add(row.startRatio, '×', start / ready);
  }

  async #loadRedis(image: Image): Promise<void> {
    const { signal, progress } = this.#options;
    const { runs, redisRequests: requests, redisConnections: connections } = this.#sizes;
    progress('bare redis for redis-benchmark');
    const guest = await BareGuest.boot(image, this.#namespace, this.#folder, signal);
    try {
      for (let run = 1; run <= runs; run++) {
        for (const operation of ['SET', 'GET'] as const) {
          progress(`redis-benchmark ${operation}, run ${run} of ${runs}`);
          const load = { operation, requests, connections };
          await this.measurements.attempt(row.rate(operation), 'requests/s', signal, () =>
            redisRequestsPerSecond(this.#namespace, bareGuestAddress, image.port ?? 0, load),
          );
        }
      }
    } finally {
      await guest.stop();
    }
  }

  plots(): Plot[] {
    const rows = this.measurements.rows().filter(({ unit }) => unit === 's');
    const bars = rows.flatMap(({ name, summary }) =>
      summary === null ? [] : [{ label: name, value: summary.p50, min: summary.min, max: summary.max }],
    );
    const lines = rows.map(({ name, values }) => ({
      label: name,
      points: values.map((value, index) => [index + 1, value] as const),
    }));
    return [
      { kind: 'bars', title: 'Median time until ready, with the range', unit: 's', bars },
      { kind: 'lines', title: 'The same, run by run', unit: 's', xTitle: 'run', lines },
    ];
  }

  headline(): Record<string, number> {
    const { measurements } = this;
    const ready = images.map(
      (name) => [`${name.replaceAll('-', '_')}_ready_s_p50`, measurements.medianOf(row.ready(name))] as const,
    );
    return headlineOf({
      ...Object.fromEntries(ready),
      bare_redis_rps: measurements.medianOf(row.rate('SET')),
      start_cold_s: measurements.medianOf(row.startCold),
      start_warm_s: measurements.medianOf(row.startWarm),
      idle_cpu_percent: measurements.medianOf(row.idle),
    });
  }
}

/** Agents and QEMUs of all replicas. */
function processesOf({ replicas }: VmStatus): number[] {
  return replicas.flatMap(({ status }) =>
    [status?.agentPid, status?.qemuPid].filter((pid) => typeof pid === 'number'),
  );
}

function settingsOf(quick: boolean, sizes: Sizes): Settings {
  return {
    quick,
    runs: sizes.runs,
    images: sizes.images,
    bareVm: 'machine pc, one vCPU under TCG, free-running, 256 MiB unless the image needs more',
    protectedVm: `${systemImage} on three replicas of this machine, machine pc, lockstep, shm, disk durability, 256 MiB`,
    warm: 'packages, QEMU and images are there; begins with the command and ends when it says PROTECTED',
    cold: "npm packages, addon, QEMU and image are made anew; Debian's packages are there",
    redis: `redis-benchmark, ${sizes.redisRequests} requests on ${sizes.redisConnections} connections, on the guest's own host; the headline is SET`,
    idle: `all agents and QEMUs over ${idleMs / 1000} s, ${settleMs / 1000} s after PROTECTED; 100 % is one core`,
  };
}

export const boot: Bench = {
  name: 'boot',
  describe: 'how long guests and protected VMs take to serve, and what an idle one costs',
  async run(options: BenchOptions): Promise<Outcome> {
    const whyImpossible = NetworkNamespace.whyImpossible();
    if (whyImpossible !== undefined)
      throw new BrokenEnvironmentError(
        'GAIA_BENCH_NAMESPACE',
        `The bench cannot make a network of its own: ${whyImpossible}`,
        'sudo npm run bench -- boot',
      );
    const redisBenchmark = redisBenchmarkVersion();
    process.env['GAIA_QEMU'] = (await requireQemu()).file;
    const sizes = options.quick ? quickSizes : fullSizes;
    const folder = await mkdtemp(join(tmpdir(), 'gaia-bench-'));
    const namespace = await NetworkNamespace.create();
    try {
      await namespace.addTap(bareGuestTap, bareHostAddress);
      const run = new BootRun(options, sizes, namespace, folder);
      await run.measure();
      return {
        settings: settingsOf(options.quick, sizes),
        versions: { redisBenchmark },
        rows: run.measurements.rows(),
        headline: run.headline(),
        plots: run.plots(),
      };
    } finally {
      await namespace.remove();
      await rm(folder, { recursive: true, force: true });
    }
  },
};
