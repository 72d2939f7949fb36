/**
 * Decides when the leader of a free-running guest begins the next round and how far it goes. Guarantees: a frame that
 * has arrived waits no longer than `gatherUs`, and only for those who were just answered; a guest with nothing to do is
 * not stopped more often than its silence allows, and what it does by itself is found within `idleUsMax`.
 */
import type { RoundExtent } from './round-record.ts';

export interface FreePacerSettings {
  /** Real time of a round that has work at most: bounds how long its output is held. */
  readonly busyUsMax: number;
  /**
   * So long a round waits, at most, for those who were answered by the one before: a round costs as much for one request
   * as for many, and clients that miss each other's rounds would take turns for ever.
   */
  readonly gatherUs: number;
  /** So long a guest that has gone quiet stands and waits for the next frame: a client that was just answered asks again soon. */
  readonly graceUs: number;
  /** Real time of a round without work: from the first on while nothing happens it doubles. */
  readonly idleUsMin: number;
  readonly idleUsMax: number;
}

const DEFAULT_FREE_PACER: FreePacerSettings = {
  busyUsMax: 20_000,
  gatherUs: 1_000,
  graceUs: 3_000,
  idleUsMin: 10_000,
  idleUsMax: 160_000,
};
/** Every so many rounds all who were answered are waited for, not only as many as usually come. */
const probeRounds = 8;

export class FreePacer {
  readonly #settings: FreePacerSettings;
  readonly busy: RoundExtent;
  #endedUs = -Infinity;
  #idleUs: number;
  #gatherUntilUs = -Infinity;
  #gatherFrames = 0;
  /** So many frames came in time when all who were answered were waited for. */
  #usualFrames = 0;
  #sinceProbe = probeRounds;

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

  /** So many frames have just left the guest, and so many wait for it. */
  released(nowUs: number, frames: number, waiting: number): void {
    const probes = ++this.#sinceProbe >= probeRounds;
    if (probes) this.#sinceProbe = 0;
    this.#gatherUntilUs = nowUs + this.#settings.gatherUs;
    this.#gatherFrames = probes ? waiting + frames : Math.min(waiting + frames, this.#usualFrames);
  }

  /** Frames in the ring beyond which nobody has to count them. */
  get gathers(): number {
    return this.#gatherFrames;
  }

  /** The next round; undefined: not yet. */
  next(nowUs: number, frames: number, guestIdle: boolean): RoundExtent | undefined {
    if (frames > 0 && guestIdle && this.#gathering(nowUs, frames)) return undefined;
    if (frames > 0 || !guestIdle) return this.busy;
    if (this.#graceUs(nowUs) > 0) return undefined;
    return { untilNs: 0, realUsMax: this.#idleUs, untilQuiet: false };
  }

  #gathering(nowUs: number, frames: number): boolean {
    if (this.#gatherUntilUs === -Infinity) return false;
    const complete = frames >= this.#gatherFrames;
    if (!complete && nowUs < this.#gatherUntilUs) return true;
    if (!complete || this.#sinceProbe === 0) this.#usualFrames = frames;
    this.#gatherUntilUs = -Infinity;
    return false;
  }

  /** Until `next` says something else although no frame has come since. */
  waitUs(nowUs: number, frames: number): number {
    return frames > 0 ? Math.max(0, this.#gatherUntilUs - nowUs) : this.#graceUs(nowUs);
  }

  #graceUs(nowUs: number): number {
    return Math.max(0, this.#endedUs + this.#settings.graceUs - nowUs);
  }
}
