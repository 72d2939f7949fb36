/** What saving and loading device state costs, of guests that serve: their drivers have their queues set up. */
import { findImage } from '../../../images/index.ts';
import { native } from '../../../native/binding.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import type { Measurements } from '../measurements.ts';

const roundNs = 2_000_000;
const warmingCycles = 5;
const memoryBytes = 256 << 20;

const stateRow = {
  save: (machine: Machine) => `SAVE: ${machine}`,
  loadKeepingCode: (machine: Machine) => `LOAD, code kept: ${machine}`,
  load: (machine: Machine) => `LOAD, code dropped: ${machine}`,
  bytes: (machine: Machine) => `device state: ${machine}`,
} as const;

export class DeviceStates {
  readonly #measurements: Measurements;
  readonly #guests = new Map<Machine, PortGuest>();

  constructor(measurements: Measurements) {
    this.#measurements = measurements;
  }

  async boot(lab: PortLab, machines: readonly Machine[]): Promise<void> {
    const hostTscKhz = native().tscKhz();
    const { name } = await findImage('redis');
    for (const machine of machines) {
      const profile = { machine, memoryBytes, lockstep: false, hostTscKhz };
      this.#guests.set(machine, await lab.boot(`state-${machine}`, name, profile));
    }
  }

  /** `cycles` of each machine, by turns; the guest runs a little between two of its own. */
  measure(cycles: number, signal: AbortSignal): void {
    for (let cycle = -warmingCycles; cycle < cycles; cycle++) {
      signal.throwIfAborted();
      for (const [machine, guest] of this.#guests) {
        guest.runFor(roundNs);
        guest.port.collect();
        const begun = performance.now();
        const { bytes, checksum } = guest.port.save();
        const saved = performance.now();
        guest.port.load(bytes, checksum, true);
        const loaded = performance.now();
        guest.runFor(roundNs);
        const second = guest.port.save();
        const again = performance.now();
        guest.port.load(second.bytes, second.checksum);
        const dropped = performance.now();
        if (cycle < 0) continue;
        this.#add(stateRow.save(machine), saved - begun);
        this.#add(stateRow.loadKeepingCode(machine), loaded - saved);
        this.#add(stateRow.load(machine), dropped - again);
        this.#measurements.add(stateRow.bytes(machine), 'bytes', bytes);
      }
    }
  }

  #add(name: string, ms: number): void {
    this.#measurements.add(name, 'µs', Math.round(ms * 10_000) / 10);
  }
}
