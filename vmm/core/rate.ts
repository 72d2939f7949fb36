/** How often something happens a second, over the last one to two seconds. Counting costs no garbage. */

const windowUs = 1_000_000;

export class Rate {
  #windowBeganUs = 0;
  #count = 0;
  #earlierPerSecond = 0;

  count(nowUs: number): void {
    this.#turn(nowUs);
    this.#count++;
  }

  perSecond(nowUs: number): number {
    this.#turn(nowUs);
    return this.#earlierPerSecond;
  }

  /** Ends the window when it is over; one in which nothing was counted leaves zero. */
  #turn(nowUs: number): void {
    const tookUs = nowUs - this.#windowBeganUs;
    if (tookUs < windowUs) return;
    this.#earlierPerSecond = (this.#count * 1e6) / tookUs;
    this.#count = 0;
    this.#windowBeganUs = nowUs;
  }
}
