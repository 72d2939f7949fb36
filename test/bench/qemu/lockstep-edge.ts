/** What the edge between two rounds of lockstep costs beside the rounds themselves, of an idle guest. */
import type { PortGuest } from '../../framework/port-guest.ts';
import { haltingFirmware } from '../../framework/port-machine.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import type { Measurements } from '../measurements.ts';

const warmingRounds = 100;

const lockstepRow = {
  empty: 'empty lockstep round: pc, 256 MiB',
} as const;

export class LockstepEdge {
  readonly #measurements: Measurements;
  readonly #guest: PortGuest;

  constructor(lab: PortLab, measurements: Measurements) {
    this.#measurements = measurements;
    this.#guest = lab.startFirmware('lockstep', haltingFirmware(), { memoryBytes: 256 << 20 });
  }

  /** A round whose instant has passed begins and ends at once. */
  measure(rounds: number): void {
    for (let round = -warmingRounds; round < rounds; round++) {
      const begun = performance.now();
      this.#guest.runUntil(1);
      const us = (performance.now() - begun) * 1000;
      if (round >= 0) this.#measurements.add(lockstepRow.empty, 'µs', Math.round(us * 10) / 10);
    }
  }
}
