/**
 * The simulated network. Messages may be lost, doubled, delayed and overtaken. Puts of one writer into one
 * target's memory arrive in order (the transport promises that), late, torn for a while, harmed, or never,
 * whatever their completion said. A link fails in one direction at a time.
 */
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { Prng } from './prng.ts';

/** Lets everything through: used once the faults are over. */
export function calm(plan: FaultPlan): FaultPlan {
  return {
    ...plan,
    messageLoss: 0,
    messageDouble: 0,
    messageDelayUsMax: 100,
    messageStraggles: 0,
    putDelayUsMax: 10,
    putLost: 0,
    putTorn: 0,
    putHarmed: 0,
    fsyncUsMax: 500,
    fsyncFails: 0,
    dieMidStep: 0,
  };
}

export class Network {
  plan: FaultPlan;
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #size: number;
  readonly #blocked: boolean[];
  readonly #lastArrivalUs: number[];
  readonly #held: (() => void)[][];
  /** What was put for a link that is down: kept until it is up again. */

  constructor(queue: EventQueue, prng: Prng, plan: FaultPlan) {
    this.#queue = queue;
    this.#prng = prng;
    this.plan = plan;
    this.#size = plan.replicas;
    const links = this.#size * this.#size;
    this.#blocked = new Array<boolean>(links).fill(false);
    this.#lastArrivalUs = new Array<number>(links).fill(0);
    this.#held = Array.from({ length: links }, () => []);
  }

  #link(from: number, to: number): number {
    return from * this.#size + to;
  }

  block(from: number, to: number): void {
    this.#blocked[this.#link(from, to)] = true;
  }

  unblock(from: number, to: number): void {
    const link = this.#link(from, to);
    this.#blocked[link] = false;
    for (const arrive of this.#held[link]?.splice(0) ?? []) arrive();
  }

  unblockAll(): void {
    for (let from = 0; from < this.#size; from++) {
      for (let to = 0; to < this.#size; to++) this.unblock(from, to);
    }
  }

  isBlocked(from: number, to: number): boolean {
    return this.#blocked[this.#link(from, to)] === true;
  }

  message(from: number, to: number, deliver: () => void): void {
    const { plan } = this;
    if (this.isBlocked(from, to) || this.#prng.chance(plan.messageLoss)) return;
    const copies = this.#prng.chance(plan.messageDouble) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const slowdown = this.#prng.chance(plan.messageStraggles) ? 100 : 1;
      this.#queue.after(this.#prng.between(1, plan.messageDelayUsMax) * slowdown, () => {
        if (!this.isBlocked(from, to)) deliver();
      });
    }
  }

  /** `arrive` gets the bytes as they are then; twice when they are torn at first. */
  put(from: number, to: number, bytes: Uint8Array, arrive: (bytes: Uint8Array) => void): void {
    const { plan } = this;
    const prng = this.#prng;
    if (prng.chance(plan.putLost)) return;
    const harmed = prng.chance(plan.putHarmed) ? flipOneBit(bytes, prng) : bytes;
    const torn = prng.chance(plan.putTorn) ? tear(harmed, prng) : undefined;
    const link = this.#link(from, to);
    const begin = (): void => {
      const last = this.#lastArrivalUs[link] ?? 0;
      const atUs = Math.max(last, this.#queue.nowUs + prng.between(0, plan.putDelayUsMax));
      const wholeUs = torn === undefined ? atUs : atUs + prng.between(1, 200);
      this.#lastArrivalUs[link] = wholeUs;
      if (torn !== undefined) this.#queue.at(atUs, () => arrive(torn));
      this.#queue.at(wholeUs, () => arrive(harmed));
    };
    if (this.isBlocked(from, to)) this.#held[link]?.push(begin);
    else begin();
  }
}

function flipOneBit(bytes: Uint8Array, prng: Prng): Uint8Array {
  const copy = bytes.slice();
  const at = prng.between(0, copy.length - 1);
  copy[at] = (copy[at] ?? 0) ^ (1 << prng.between(0, 7));
  return copy;
}

/** The head or the tail is there first; byte order within one put is promised nowhere. */
function tear(bytes: Uint8Array, prng: Prng): Uint8Array {
  const copy = bytes.slice();
  const cut = prng.between(0, copy.length);
  if (prng.chance(0.5)) copy.fill(0, cut);
  else copy.fill(0, 0, cut);
  return copy;
}
