/**
 * What the gaia port of QEMU costs: the edge of a round (stop, bitmap, resume), device state, and frames through the
 * rings beside frames through a plain tap. The bench is the agent itself, so that only QEMU and one thread take part.
 */
import { getPriority } from 'node:os';
import { buildImage } from '../../../images/index.ts';
import { BrokenEnvironmentError, requireQemu } from '../../../vmm/index.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { PortLab } from '../../framework/port-lab.ts';
import type { Bench, BenchOptions, Outcome, Settings } from '../bench.ts';
import { headlineOf, Measurements, type Row } from '../measurements.ts';
import type { BarPlot, Plot } from '../plot.ts';
import { redisBenchmarkVersion } from '../redis-benchmark.ts';
import { DeviceStates } from './device-state.ts';
import { FrameRates, frameRow, plainQemu, type FrameLoad } from './frame-rate.ts';
import { LockstepEdge } from './lockstep-edge.ts';
import { dirtyPages, PauseCycles, pauseRow, type System } from './pause-cycle.ts';

const systems: readonly System[] = [
  { machine: 'pc', memoryMib: 256 },
  { machine: 'microvm', memoryMib: 256 },
  { machine: 'pc', memoryMib: 2048 },
  { machine: 'microvm', memoryMib: 2048 },
];
const headlineSystem: System = { machine: 'pc', memoryMib: 256 };

interface Sizes {
  /** Parts of the bench take turns so often. */
  readonly turns: number;
  readonly cyclesPerTurn: number;
  readonly load: FrameLoad;
}

const fullSizes: Sizes = { turns: 5, cyclesPerTurn: 40, load: { requests: 30_000, connections: 50 } };
const quickSizes: Sizes = { turns: 2, cyclesPerTurn: 20, load: { requests: 10_000, connections: 50 } };

async function measure(
  { progress, signal }: BenchOptions,
  { turns, cyclesPerTurn, load }: Sizes,
  lab: PortLab,
): Promise<Measurements> {
  const measurements = new Measurements();
  progress('image redis');
  await buildImage('redis', { signal });
  progress('guests boot');
  const cycles = new PauseCycles(lab, measurements, systems);
  const lockstep = new LockstepEdge(lab, measurements);
  const states = new DeviceStates(measurements);
  await states.boot(lab, ['pc', 'microvm']);
  const rates = await FrameRates.boot(lab, measurements, load, signal);
  try {
    for (let turn = 1; turn <= turns; turn++) {
      progress(`turn ${turn} of ${turns}: round edges`);
      cycles.measure(cyclesPerTurn, signal);
      lockstep.measure(cyclesPerTurn);
      progress(`turn ${turn} of ${turns}: device state`);
      states.measure(cyclesPerTurn, signal);
      progress(`turn ${turn} of ${turns}: frames`);
      await rates.measure(signal);
    }
  } finally {
    await rates.stop();
  }
  return measurements;
}

function headline(measurements: Measurements): Record<string, number> {
  return headlineOf({
    pause_cycle_1000_pages_us_p50: measurements.medianOf(pauseRow.cycle(headlineSystem)),
    bitmap_256mib_us_p50: measurements.medianOf(pauseRow.bitmap(headlineSystem)),
    frame_rate_vs_plain_tap_ratio: measurements.ratio(frameRow.port, frameRow.plain),
  });
}

function barsOf(rows: readonly Row[], unit: string): BarPlot['bars'] {
  return rows.flatMap(({ name, summary, unit: own }) =>
    summary === null || own !== unit
      ? []
      : [{ label: name, value: summary.p50, min: summary.min, max: Math.min(summary.max, summary.p99) }],
  );
}

function plotsOf(rows: readonly Row[]): Plot[] {
  return [
    {
      kind: 'bars',
      title: 'Median, with the range from least to 99th of 100',
      unit: 'µs',
      bars: barsOf(rows, 'µs'),
    },
    { kind: 'bars', title: 'Frames in both directions', unit: 'frames/s', bars: barsOf(rows, 'frames/s') },
  ];
}

function settingsOf(quick: boolean, { turns, cyclesPerTurn, load }: Sizes): Settings {
  return {
    quick,
    turns,
    cyclesPerTurn,
    priority: `nice ${getPriority()}`,
    accelerator: 'TCG, one vCPU, free-running unless a row says lockstep',
    pauseCycle: `STOP, COLLECT, RUN until the guest is seen to count on; ${dirtyPages} pages are dirty, its disk is idle; STOP, COLLECT and RUN are parts of these cycles`,
    byPause: 'the same with PAUSE, which stops as vm_stop() does: it flushes the disk and tells every device',
    limit: 'a request that does nothing is the least that any of them can take',
    deviceState: 'of a redis guest of 256 MiB that has booted, without its RAM',
    frames: `redis-benchmark GET on ${load.connections} connections, ${load.requests} requests a turn, frames counted at the tap, both directions`,
    throughTheRings:
      'the bench delivers what came in, lets the guest run until it is quiet, releases what it sent; nothing is agreed on or compared',
    atOnce:
      'the same rings without rounds: the guest runs on, is given what came in at once, and its output leaves as it is sent',
    plainTap: `${plainQemu().name}, free-running, same machine and memory`,
  };
}

export const qemu: Bench = {
  name: 'qemu',
  describe: "what the gaia port of QEMU costs: a round's edge, device state, frames through its rings",
  async run(options: BenchOptions): Promise<Outcome> {
    const whyImpossible = NetworkNamespace.whyImpossible();
    if (whyImpossible !== undefined)
      throw new BrokenEnvironmentError(
        'GAIA_BENCH_NAMESPACE',
        `The bench cannot make a network of its own: ${whyImpossible}`,
        'sudo npm run bench -- qemu',
      );
    const redisBenchmark = redisBenchmarkVersion();
    process.env['GAIA_QEMU'] = (await requireQemu()).file;
    const sizes = options.quick ? quickSizes : fullSizes;
    const lab = new PortLab();
    try {
      await lab.open();
      const measurements = await measure(options, sizes, lab);
      const rows = measurements.rows();
      return {
        settings: settingsOf(options.quick, sizes),
        versions: { redisBenchmark },
        rows,
        headline: headline(measurements),
        plots: plotsOf(rows),
      };
    } finally {
      await lab.remove();
    }
  },
};
