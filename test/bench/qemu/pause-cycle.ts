/**
 * What a round's edge costs: the running guest is stopped, its dirty bitmap read, and it is made to run again. Guests
 * are page writers, whose dirty pages are known exactly; each has an idle disk. All guests take turns.
 */
import { PageWriter, pageWriterFirmware } from '../../framework/page-writer.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { native } from '../../../native/binding.ts';
import type { Measurements } from '../measurements.ts';

export interface System {
  readonly machine: Machine;
  readonly memoryMib: number;
}

export const dirtyPages = 1000;
/** In which a guest counts on before it is stopped. */
const countsBefore = 100;
const warmingCycles = 20;
const mebibyte = 2 ** 20;

export const pauseRow = {
  cycle: (system: System) => `pause cycle: ${nameOf(system)}`,
  fullCycle: (system: System) => `pause cycle by PAUSE: ${nameOf(system)}`,
  stop: (system: System) => `STOP: ${nameOf(system)}`,
  bitmap: (system: System) => `COLLECT ${dirtyPages} pages: ${nameOf(system)}`,
  emptyBitmap: (system: System) => `COLLECT no page: ${nameOf(system)}`,
  resume: (system: System) => `RUN: ${nameOf(system)}`,
  request: 'a request that does nothing',
} as const;

function nameOf({ machine, memoryMib }: System): string {
  return `${machine}, ${memoryMib} MiB`;
}

export class PauseCycles {
  readonly #measurements: Measurements;
  readonly #writers: readonly { readonly system: System; readonly writer: PageWriter }[];

  /** Starts a guest for each system; they stand but for their turns. */
  constructor(lab: PortLab, measurements: Measurements, systems: readonly System[]) {
    this.#measurements = measurements;
    const hostTscKhz = native().tscKhz();
    this.#writers = systems.map((system, index) => {
      const { machine, memoryMib } = system;
      const profile = { machine, memoryBytes: memoryMib * mebibyte, lockstep: false, hostTscKhz };
      const guest = lab.startFirmware(`writer${index}`, pageWriterFirmware(), profile);
      return { system, writer: new PageWriter(guest) };
    });
  }

  /** `cycles` of each system, by turns. */
  measure(cycles: number, signal: AbortSignal): void {
    for (let cycle = -warmingCycles; cycle < cycles; cycle++) {
      signal.throwIfAborted();
      for (const { system, writer } of this.#writers) {
        const keep = cycle >= 0;
        this.#cycle(system, writer, keep);
        this.#fullCycle(system, writer, keep);
      }
    }
  }

  #add(keep: boolean, name: string, microseconds: number): void {
    if (keep) this.#measurements.add(name, 'µs', Math.round(microseconds * 10) / 10);
  }

  /** Lets the guest run and dirty its pages; it still runs afterwards. */
  #runDirtying(writer: PageWriter): void {
    writer.guest.port.stop();
    writer.guest.port.collect();
    this.#resume(writer);
    writer.dirty(dirtyPages);
    const { counter } = writer;
    while (writer.counter - counter < countsBefore);
  }

  /** Until the vCPU has been seen to run. */
  #resume(writer: PageWriter): void {
    const { counter } = writer;
    writer.guest.beginWithin({});
    writer.awaitRunning(counter);
  }

  #cycle(system: System, writer: PageWriter, keep: boolean): void {
    const { port } = writer.guest;
    this.#runDirtying(writer);
    const begun = performance.now();
    port.stop();
    const stopped = performance.now();
    const pages = port.collect();
    const collected = performance.now();
    this.#resume(writer);
    const resumed = performance.now();
    // In the first cycles the guest comes up.
    if (keep && pages !== dirtyPages) throw new Error(`${pages} pages were dirty, not ${dirtyPages}`);
    this.#add(keep, pauseRow.cycle(system), (resumed - begun) * 1000);
    this.#add(keep, pauseRow.stop(system), (stopped - begun) * 1000);
    this.#add(keep, pauseRow.bitmap(system), (collected - stopped) * 1000);
    this.#add(keep, pauseRow.resume(system), (resumed - collected) * 1000);
    port.stop();
    port.collect();
    const empty = performance.now();
    const none = port.collect();
    this.#add(keep, pauseRow.emptyBitmap(system), (performance.now() - empty) * 1000);
    if (none !== 0) throw new Error(`${none} pages are dirty though the guest stands`);
    const asked = performance.now();
    port.drop(writer.guest.held.tail);
    this.#add(keep, pauseRow.request, (performance.now() - asked) * 1000);
  }

  /** As it would be with QEMU's own way to stop, which flushes the disk and tells every device. */
  #fullCycle(system: System, writer: PageWriter, keep: boolean): void {
    const { port } = writer.guest;
    this.#runDirtying(writer);
    const begun = performance.now();
    port.pause();
    port.collect();
    this.#resume(writer);
    this.#add(keep, pauseRow.fullCycle(system), (performance.now() - begun) * 1000);
    port.stop();
  }
}
