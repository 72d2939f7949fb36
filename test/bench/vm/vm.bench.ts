/**
 * What protection costs a service, and what its clients see of a failure: the same load on a bare VM, on a pair of
 * bare VMs, on QEMU's COLO and on gaia-vm, on one machine and on hosts with a network between them. The systems take
 * turns within each run.
 */
import { randomInt } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage, type Image } from '../../../images/index.ts';
import { BrokenEnvironmentError, requireQemu } from '../../../vmm/index.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import type { Bench, BenchOptions, Outcome } from '../bench.ts';
import { headlineOf, Measurements } from '../measurements.ts';
import type { Plot } from '../plot.ts';
import { redisBenchmarkVersion } from '../redis-benchmark.ts';
import { bareVms } from './bare.ts';
import { qemuColo, stockQemuVersion } from './colo.ts';
import { gaiaVmOnHosts } from './hosted.ts';
import type { Figures } from './load-output.ts';
import { loads, type Load, type Target } from './load.ts';
import { gaiaVm, saved } from './protected.ts';
import type { RunningSystem, System } from './system.ts';

const pair = bareVms('pair of bare VMs', 2);
/** What is agreed on is in the memory of two hosts; bare VMs keep nothing of their inputs. */
const inMemory = ['--durability', 'memory'];
const lockstep = gaiaVm('gaia-vm lockstep', ['--mode', 'lockstep', ...inMemory]);
const onDisk = gaiaVm('gaia-vm lockstep, log on disk', ['--mode', 'lockstep']);
const vsmr = gaiaVm('gaia-vm vsmr', ['--mode', 'vsmr', ...inMemory]);
const checkpoint = gaiaVm('gaia-vm checkpoint', ['--mode', 'checkpoint', ...inMemory]);
const inMemoryOfHosts = 'durability: memory';
const hostedVsmr = gaiaVmOnHosts('gaia-vm vsmr, 1 Gb/s', ['mode: vsmr', inMemoryOfHosts]);
const hostedCheckpoint = gaiaVmOnHosts('gaia-vm checkpoint, 1 Gb/s', ['mode: checkpoint', inMemoryOfHosts]);
const quickSystems: readonly System[] = [bareVms('bare VM', 1), pair, lockstep, onDisk, vsmr, checkpoint];
const localSystems: readonly System[] = [...quickSystems, qemuColo];
const systems: readonly System[] = [...localSystems, hostedVsmr, hostedCheckpoint];
/** Three hosts take long to come up: the two services whose rounds differ most are enough. */
const hostedImages: readonly string[] = ['redis', 'memcached'];

interface Sizes {
  readonly runs: number;
  readonly seconds: number;
  readonly kills: number;
  readonly images: readonly string[];
  readonly systemsFor: (image: string) => readonly System[];
}

const fullSizes: Sizes = {
  ...{ runs: 3, seconds: 5, kills: 20 },
  images: loads.map(({ image }) => image),
  systemsFor: (image) => (hostedImages.includes(image) ? systems : localSystems),
};
const quickSizes: Sizes = {
  ...{ runs: 1, seconds: 4, kills: 2 },
  images: ['redis', 'memcached'],
  systemsFor: () => quickSystems,
};

const row = {
  rate: (load: string, system: string) => `${load}, ${system}`,
  p50: (load: string, system: string) => `${load} p50, ${system}`,
  p99: (load: string, system: string) => `${load} p99, ${system}`,
  gap: (load: string) => `${load}, longest reply while the leader is killed`,
  own: (load: string, system: string, name: string) => `${load} ${name}, ${system}`,
};

class VmRun {
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
    const { progress, signal } = this.#options;
    for (const load of loads.filter(({ image }) => this.#sizes.images.includes(image))) {
      progress(`image ${load.image}`);
      const image = await buildImage(load.image, { signal });
      for (let run = 1; run <= this.#sizes.runs; run++) {
        for (const system of this.#sizes.systemsFor(load.image)) {
          if (system.whyImpossible() !== undefined) continue;
          progress(`${load.image}, run ${run} of ${this.#sizes.runs}: ${system.name}`);
          await this.#underLoad(load, system, image);
        }
      }
      await this.#gaps(load, image);
    }
  }

  async #underLoad(load: Load, system: System, image: Image): Promise<void> {
    const { measurements } = this;
    const { signal } = this.#options;
    const name = row.rate(load.image, system.name);
    await measurements.attempt(name, load.unit, signal, async () => {
      const running = await system.start(image, this.#folder, signal);
      try {
        const measured = async () => {
          const figures = await loaded(load, running.targets, this.#sizes.seconds);
          return { figures, told: await running.figures() };
        };
        const { figures, told } = await Promise.race([measured(), ...failureOf(running)]);
        measurements.add(row.p50(load.image, system.name), 'ms', meanOf(figures, 'p50Ms'));
        measurements.add(row.p99(load.image, system.name), 'ms', meanOf(figures, 'p99Ms'));
        for (const [own, { unit, value }] of Object.entries(told))
          measurements.add(row.own(load.image, system.name, own), unit, value);
        return meanOf(figures, 'rate');
      } finally {
        await running.stop();
      }
    });
  }

  /** One VM, its leader killed again and again at a random moment of a load. */
  async #gaps(load: Load, image: Image): Promise<void> {
    const { progress, signal } = this.#options;
    const { kills, seconds } = this.#sizes;
    const running = await lockstep.start(image);
    try {
      for (const target of running.targets) await load.prepare(target);
      for (let kill = 1; kill <= kills; kill++) {
        progress(`${load.image}: kill ${kill} of ${kills}`);
        const [target] = running.targets;
        if (target === undefined) return;
        await this.measurements.attempt(row.gap(load.image), 'ms', signal, async () => {
          const under = load.run(target, seconds);
          const [figures] = await Promise.all([under, killWithin(seconds / 2, () => running.killLeader())]);
          return figures.maxMs;
        });
        await running.untilProtected();
      }
    } finally {
      await running.stop();
    }
  }

  headline(): Record<string, number> {
    const { measurements } = this;
    const entries: Record<string, number | undefined> = {};
    const rows = measurements.rows();
    for (const { image } of loads) {
      const rate = (system: System): string => row.rate(image, system.name);
      entries[`${image}_lockstep_vs_pair_ratio`] = measurements.ratio(rate(lockstep), rate(pair));
      entries[`${image}_lockstep_on_disk_vs_pair_ratio`] = measurements.ratio(rate(onDisk), rate(pair));
      entries[`${image}_vsmr_vs_pair_ratio`] = measurements.ratio(rate(vsmr), rate(pair));
      entries[`${image}_vsmr_vs_colo_ratio`] = measurements.ratio(rate(vsmr), rate(qemuColo));
      entries[`${image}_lockstep_vs_colo_ratio`] = measurements.ratio(rate(lockstep), rate(qemuColo));
      const [hosted, copied] = [rate(hostedVsmr), rate(hostedCheckpoint)];
      entries[`${image}_vsmr_vs_checkpoint_1gbit_ratio`] = measurements.ratio(hosted, copied);
      entries[`${image}_vsmr_vs_checkpoint_shm_ratio`] = measurements.ratio(rate(vsmr), rate(checkpoint));
      entries[`${image}_saved_percent`] = measurements.medianOf(row.own(image, vsmr.name, saved));
      const gaps = rows.find(({ name }) => name === row.gap(image));
      const sorted = [...(gaps?.values ?? [])].sort((left, right) => left - right);
      entries[`${image}_gap_ms_p50`] = measurements.medianOf(row.gap(image));
      entries[`${image}_gap_ms_p99`] = sorted[Math.ceil(sorted.length * 0.99) - 1];
      entries[`${image}_errors`] = gaps?.failures.length;
    }
    return headlineOf(entries);
  }

  plots(): Plot[] {
    const rows = this.measurements.rows();
    return loads.flatMap(({ image, unit }): Plot[] => {
      const bars = systems.flatMap(({ name }) => {
        const summary = rows.find((candidate) => candidate.name === row.rate(image, name))?.summary ?? null;
        return summary === null
          ? []
          : [{ label: name, value: summary.p50, min: summary.min, max: summary.max }];
      });
      return bars.length === 0 ? [] : [{ kind: 'bars', title: `${image}, more is better`, unit, bars }];
    });
  }
}

function failureOf({ failure }: RunningSystem): Promise<never>[] {
  return failure === undefined ? [] : [failure];
}

/** Why a system has not all rows. */
function leftOut(system: System, { images, systemsFor }: Sizes): string[] {
  const why = system.whyImpossible();
  if (why !== undefined) return [why];
  const missing = images.filter((image) => !systemsFor(image).includes(system));
  return missing.length === 0 ? [] : [`${system.name}: not in this run with ${missing.join(', ')}`];
}

/** The same load on every target at the same time. */
async function loaded(load: Load, targets: readonly Target[], seconds: number): Promise<Figures[]> {
  for (const target of targets) await load.prepare(target);
  return Promise.all(targets.map((target) => load.run(target, seconds)));
}

function meanOf(figures: readonly Figures[], name: keyof Figures): number {
  return figures.reduce((sum, figure) => sum + figure[name], 0) / figures.length;
}

async function killWithin(seconds: number, kill: () => Promise<void>): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, randomInt(100, seconds * 1000))); // The random moment.
  await kill();
}

export const vm: Bench = {
  name: 'vm',
  images: loads.map(({ image }) => image),
  describe: 'what protection costs a service under load, and what clients see of a dead leader',
  async run(options: BenchOptions): Promise<Outcome> {
    const whyImpossible = NetworkNamespace.whyImpossible();
    if (whyImpossible !== undefined)
      throw new BrokenEnvironmentError(
        'GAIA_BENCH_NAMESPACE',
        `The bench cannot make a network of its own: ${whyImpossible}`,
        'sudo npm run bench -- vm',
      );
    const redisBenchmark = redisBenchmarkVersion();
    process.env['GAIA_QEMU'] = (await requireQemu()).file;
    const all = options.quick ? quickSizes : fullSizes;
    const sizes = { ...all, images: all.images.filter((image) => options.images.includes(image)) };
    const folder = await mkdtemp(join(tmpdir(), 'gaia-bench-'));
    try {
      const run = new VmRun(options, sizes, folder);
      await run.measure();
      return {
        settings: {
          quick: options.quick,
          runs: sizes.runs,
          seconds: sizes.seconds,
          kills: sizes.kills,
          ...Object.fromEntries(loads.map(({ image, describe }) => [image, describe])),
          ...Object.fromEntries(systems.map(({ name, describe }) => [name, describe])),
          leftOut: systems.flatMap((system) => leftOut(system, sizes)),
        },
        versions: { redisBenchmark, stockQemu: stockQemuVersion() ?? 'not installed' },
        rows: run.measurements.rows(),
        headline: run.headline(),
        plots: run.plots(),
      };
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};
