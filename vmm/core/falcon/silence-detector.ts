/**
 * How long somebody who speaks regularly may be silent before he is taken for gone: phi accrual (Hayashibara et
 * al., "The phi accrual failure detector", 2004) over the intervals at which he was heard. Silences have a longer
 * tail than the normal distribution of that paper: a processor that is shared takes a thread away for many
 * intervals at once. So the tail is taken as exponential, and the longest interval of the last half minute or so
 * counts three times.
 *
 * All times are *watched* time (state.ts): while a replica did not look, it heard no silence. But that it did not
 * is a sign of its own: where one replica waits so long for a processor, another may too.
 *
 * Starting processes and loading a guest's state holds everybody up for once. So what was heard until two guests
 * execute counts only until then: `settled` forgets it, and keeps what has held anybody up in settled times.
 *
 * Times serve liveness only; being wrong costs an election, never a promise.
 */
import type { FalconTimes } from './settings.ts';

/** Weight of the newest interval in mean and deviation. */
const SMOOTHING = 1 / 32;
/** Part of the longest interval that is forgotten with each one heard: half of it in 4000, some 20 s of heartbeats. */
const PEAK_DECAY = 1 / 5770;
const PEAK_FACTOR = 3;
/** Three of these, as parts of the least patience, make somewhat more than that: what is begun with. */
const CALM_SHARE = 0.4;
const LN_10 = Math.log(10);

export class SilenceDetector {
  readonly #times: FalconTimes;
  #lastUs = -1;
  #meanUs: number;
  #deviationUs = 0;
  /** Longest interval of late, and the longest of those in settled times. */
  #peakUs: number;
  #settledPeakUs = 0;
  #isSettled = false;

  constructor(times: FalconTimes) {
    this.#times = times;
    this.#meanUs = times.heartbeatIntervalUs;
    this.#peakUs = this.#calmUs;
  }

  get #calmUs(): number {
    return CALM_SHARE * this.#times.silenceUsMin;
  }

  /** Two guests execute: nobody loads state any more. */
  settled(): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#peakUs = this.#settledPeakUs > this.#calmUs ? this.#settledPeakUs : this.#calmUs;
  }

  /** One guest is left: another one will be started, and will load state. */
  unsettled(): void {
    this.#isSettled = false;
  }

  /** What is heard next ends no interval: somebody else speaks, or from somewhere else. */
  restart(): void {
    this.#lastUs = -1;
  }

  /** Somebody was held up for so long: who was heard at last, or this replica itself. */
  heldUp(us: number): void {
    const peakUsMax = this.#times.silenceUsMax / PEAK_FACTOR;
    const peakUs = us < peakUsMax ? us : peakUsMax;
    if (peakUs > this.#peakUs) this.#peakUs = peakUs;
    if (this.#isSettled && peakUs > this.#settledPeakUs) this.#settledPeakUs = peakUs;
  }

  heard(watchUs: number): void {
    const intervalUs = watchUs - this.#lastUs;
    const first = this.#lastUs < 0;
    this.#lastUs = watchUs;
    if (first) return;
    const offUs = intervalUs - this.#meanUs;
    this.#meanUs += offUs * SMOOTHING;
    this.#deviationUs += ((offUs < 0 ? -offUs : offUs) - this.#deviationUs) * SMOOTHING;
    this.#peakUs -= this.#peakUs * PEAK_DECAY;
    this.#settledPeakUs -= this.#settledPeakUs * PEAK_DECAY;
    this.heldUp(intervalUs);
  }

  /** A longer silence than this is as unlikely as 10 to the power of minus `suspicion`, or exceeds all bounds. */
  get timeoutUs(): number {
    const { suspicion, silenceUsMin, silenceUsMax } = this.#times;
    const unlikelyUs = this.#meanUs + suspicion * LN_10 * this.#deviationUs;
    const longUs = PEAK_FACTOR * this.#peakUs;
    const timeoutUs = unlikelyUs > longUs ? unlikelyUs : longUs;
    if (timeoutUs < silenceUsMin) return silenceUsMin;
    return timeoutUs < silenceUsMax ? timeoutUs : silenceUsMax;
  }
}
