/** How long to wait before something that ended is started again: longer each time, until it has lasted. */

export interface BackoffTimes {
  readonly firstMs: number;
  readonly maxMs: number;
  /** What ran for this long counts as sound: the next wait is the first again. */
  readonly soundAfterMs: number;
}

export class Backoff {
  readonly #times: BackoffTimes;
  #attempts = 0;
  #startedMs = Infinity;

  constructor(times: BackoffTimes) {
    this.#times = times;
  }

  /** Starts since it was sound last. */
  get attempts(): number {
    return this.#attempts;
  }

  started(nowMs: number): void {
    this.#startedMs = nowMs;
    this.#attempts++;
  }

  /** It has ended: how long to wait from now on before it is started again, ms. */
  waitMs(nowMs: number): number {
    const { firstMs, maxMs, soundAfterMs } = this.#times;
    if (nowMs - this.#startedMs >= soundAfterMs) this.#attempts = 0;
    return Math.min(maxMs, firstMs * 2 ** Math.min(this.#attempts, 30));
  }
}
