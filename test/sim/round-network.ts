/** Messages that are lost, doubled, delayed and overtaken, and puts that arrive in order; links fail one way at a time. */
import type { EventQueue } from './event-queue.ts';
import type { Prng } from './prng.ts';
import type { RoundPlan } from './round-plan.ts';

export class RoundNetwork {
  plan: RoundPlan;
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #blocked = new Set<string>();
  readonly #lastArrivalUs = new Map<string, number>();
  readonly #held = new Map<string, (() => void)[]>();

  constructor(queue: EventQueue, prng: Prng, plan: RoundPlan) {
    this.#queue = queue;
    this.#prng = prng;
    this.plan = plan;
  }

  block(from: number, to: number): void {
    this.#blocked.add(`${from}>${to}`);
  }

  unblock(from: number, to: number): void {
    const link = `${from}>${to}`;
    this.#blocked.delete(link);
    for (const arrive of this.#held.get(link)?.splice(0) ?? []) arrive();
  }

  message(from: number, to: number, deliver: () => void): void {
    const { plan } = this;
    const link = `${from}>${to}`;
    if (this.#blocked.has(link) || this.#prng.chance(plan.messageLoss)) return;
    const copies = this.#prng.chance(plan.messageDouble) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const slowdown = this.#prng.chance(plan.messageStraggles) ? 100 : 1;
      this.#queue.after(this.#prng.between(1, plan.messageDelayUsMax) * slowdown, () => {
        if (!this.#blocked.has(link)) deliver();
      });
    }
  }

  /** One-sided: late, but in order and whole. */
  put(from: number, to: number, arrive: () => void): void {
    const link = `${from}>${to}`;
    const begin = (): void => {
      const last = this.#lastArrivalUs.get(link) ?? 0;
      const atUs = Math.max(last, this.#queue.nowUs + this.#prng.between(0, this.plan.putDelayUsMax));
      this.#lastArrivalUs.set(link, atUs);
      this.#queue.at(atUs, arrive);
    };
    if (!this.#blocked.has(link)) begin();
    else this.#held.set(link, [...(this.#held.get(link) ?? []), begin]);
  }
}
