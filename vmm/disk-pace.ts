/**
 * How the disk of a log keeps up: since when it owes something, and whether it is slow. Time during which nobody looked
 * is the agent's own slowness, and counts for no more than one wait of its loop.
 */

/** A disk that has finished nothing for this long is no progress: whoever leads lets another one lead. */
const stallUs = 1_000_000;
/** One that takes this long for a write is worth telling a person. */
const slowUs = 100_000;
/** A disk that is slow again after it has been fast for so long is told of again. */
const fastAgainUs = 10_000_000;
const lookGapUsMax = 60_000;

export class DiskPace {
  #lookedUs = 0;
  #owes = false;
  /** For how long it has owed something without finishing anything. */
  #owedUs = 0;
  #slowSeenUs = -Infinity;
  #tellUs: number | undefined;

  /** `finished`: something since the last look. */
  look(nowUs: number, finished: boolean, owes: boolean): void {
    if (this.#owes) this.#owedUs += Math.min(nowUs - this.#lookedUs, lookGapUsMax);
    this.#lookedUs = nowUs;
    this.#owes = owes;
    if (finished) this.#noteFinished(nowUs);
    if (finished || !owes) this.#owedUs = 0;
  }

  #noteFinished(nowUs: number): void {
    if (this.#owedUs < slowUs) return;
    if (nowUs - this.#slowSeenUs > fastAgainUs) this.#tellUs = this.#owedUs;
    this.#slowSeenUs = nowUs;
  }

  /** Once each time that it becomes slow: microseconds that it took. */
  takeSlow(): number | undefined {
    const tellUs = this.#tellUs;
    this.#tellUs = undefined;
    return tellUs;
  }

  get stalls(): boolean {
    return this.#owedUs > stallUs;
  }
}
