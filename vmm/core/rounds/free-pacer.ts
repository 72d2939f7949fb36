/**
 * Decides when the leader of a free-running guest begins the next round and how far it goes. Guarantees: a frame that
 * has arrived is never kept waiting; a guest with nothing to do is not stopped more often than its silence allows, and
 * what it does by itself is found within `idleUsMax`.
 */
import type { RoundExtent } from './round-record.ts';

export interface FreePacerSettings {
  /** Real time of a round that has work at most: bounds how long its output is held. */
  readonly busyUsMax: number;
  /** So long a guest that has gone quiet stands and waits for the next frame: a client that was just answered asks again soon. */
  readonly graceUs: number;
  /** Real time of a round without work: from the first on while nothing happens it doubles. */
  readonly idleUsMin: number;
  readonly idleUsMax: number;
}

const DEFAULT_FREE_PACER: FreePacerSettings = {
  busyUsMax: 20_000,
  graceUs: 1_000,
  idleUsMin: 10_000,
  idleUsMax: 160_000,
};

export class FreePacer {
  readonly #settings: FreePacerSettings;
  readonly busy: RoundExtent;
  #endedUs = -Infinity;
  #idleUs: number;

  constructor(settings: FreePacerSettings = DEFAULT_FREE_PACER) {
    this.#settings = settings;
    this.#idleUs = settings.idleUsMin;
    this.busy = { untilNs: 0, realUsMax: settings.busyUsMax, untilQuiet: true };
  }

  /** `silent`: the round had no input, the guest sent nothing in it and waits. */
  roundEnded(nowUs: number, silent: boolean): void {
    const { idleUsMin, idleUsMax } = this.#settings;
    this.#endedUs = nowUs;
    this.#idleUs = silent ? Math.min(2 * this.#idleUs, idleUsMax) : idleUsMin;
  }

  /** The next round; undefined: not yet. */
  next(nowUs: number, framesWait: boolean, guestIdle: boolean): RoundExtent | undefined {
    if (framesWait || !guestIdle) return this.busy;
    if (this.waitUs(nowUs) > 0) return undefined;
    return { untilNs: 0, realUsMax: this.#idleUs, untilQuiet: false };
  }

  /** Until `next` says something else without a frame. */
  waitUs(nowUs: number): number {
    return Math.max(0, this.#endedUs + this.#settings.graceUs - nowUs);
  }
}
