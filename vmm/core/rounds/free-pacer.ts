/**
 * Decides when the leader of a free-running guest begins the next round and how far it goes. Guarantees: a frame that
 * has arrived waits no longer than `gatherUsMax`, and only for those who were just answered and still come one after the
 * other; a guest with nothing to do is not stopped more often than its silence allows, and what it does by itself is
 * found within `idleUsMax`.
 */
import type { RoundExtent } from './round-record.ts';

export interface FreePacerSettings {
  /** Real time of a round that has work at most: bounds how long its output is held. */
  readonly busyUsMax: number;
  /**
   * A round waits for those who were answered by the one before until nobody has come for so long: a round costs as much
   * for one request as for many, and clients that miss each other's rounds would take turns for ever.
   */
  readonly lullUs: number;
  /** So long it waits at most, however many still come. */
  readonly gatherUsMax: number;
  /** So long a guest that has gone quiet stands and waits for the next frame: a client that was just answered asks again soon. */
  readonly graceUs: number;
  /** Real time of a round without work: from the first on while nothing happens it doubles. */
  readonly idleUsMin: number;
  readonly idleUsMax: number;
}

const DEFAULT_FREE_PACER: FreePacerSettings = {
  busyUsMax: 40_000,
  lullUs: 500,
  gatherUsMax: 5_000,
  graceUs: 3_000,
  idleUsMin: 10_000,
  idleUsMax: 160_000,
};

export class FreePacer {
  readonly #settings: FreePacerSettings;
  readonly busy: RoundExtent;
  #endedUs = -Infinity;
  #idleUs: number;
  /** So many frames wait once all who were answered have come; 0: nobody is waited for. */
  #awaited = 0;
  /** So many did when last looked. */
  #came = -1;
  /** When the next round begins although not all have come. */
  #gatherUntilUs = -Infinity;
  #gatherUntilUsMax = -Infinity;

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

  /** Output has just left: `frames` wait for the guest once each of it is answered. */
  awaits(frames: number): void {
    this.#awaited = frames;
    this.#came = -1;
  }

  /** Frames in the ring beyond which nobody has to count them. */
  get gathers(): number {
    return this.#awaited;
  }

  /** The next round; undefined: not yet. */
  next(nowUs: number, frames: number, guestIdle: boolean): RoundExtent | undefined {
    if (this.#gathering(nowUs, frames)) return undefined;
    if (frames > 0 || !guestIdle) return this.busy;
    if (this.#graceUs(nowUs) > 0) return undefined;
    return { untilNs: 0, realUsMax: this.#idleUs, untilQuiet: false };
  }

  #gathering(nowUs: number, frames: number): boolean {
    if (this.#awaited === 0) return false;
    if (this.#came === -1) this.#gatherUntilUsMax = nowUs + this.#settings.gatherUsMax;
    if (frames > this.#came) {
      this.#came = frames;
      this.#gatherUntilUs = Math.min(nowUs + this.#settings.lullUs, this.#gatherUntilUsMax);
    }
    if (frames < this.#awaited && nowUs < this.#gatherUntilUs) return true;
    this.#awaited = 0;
    return false;
  }

  /** Until `next` says something else although no frame has come since. */
  waitUs(nowUs: number): number {
    return this.#awaited > 0 ? Math.max(0, this.#gatherUntilUs - nowUs) : this.#graceUs(nowUs);
  }

  #graceUs(nowUs: number): number {
    return Math.max(0, this.#endedUs + this.#settings.graceUs - nowUs);
  }
}
