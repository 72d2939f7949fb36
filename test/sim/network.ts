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
    putCut: 0,
    putStale: 0,
    putDenied: 0,
    bytesChange: 0,
    fsyncUsMax: 500,
    fsyncFails: 0,
    dieMidStep: 0,
  };
}

/** What a link does to what is put on it. */
class Link {
  blocked = false;
  /** Everything takes this much longer. */
  clogUs = 0;
  lastArrivalUs = 0;
  /** What was put while the link was down: goes out when it is up again. */
  held: (() => void)[] = [];
}

export class Network {
  plan: FaultPlan;
  readonly #queue: EventQueue;
  readonly #prng: Prng;
  readonly #links: Link[][];
  /** The last bytes put at each place, so that they can come again. */
  readonly #places = new Map<number, Uint8Array>();

  constructor(queue: EventQueue, prng: Prng, plan: FaultPlan, hostsMax: number) {
    this.#queue = queue;
    this.#prng = prng;
    this.plan = plan;
    this.#links = Array.from({ length: hostsMax }, () => Array.from({ length: hostsMax }, () => new Link()));
  }

  #link(from: number, to: number): Link {
    const link = this.#links[from]?.[to];
    if (link === undefined) throw new RangeError(`There is no link from ${from} to ${to}`);
    return link;
  }

  block(from: number, to: number): void {
    this.#link(from, to).blocked = true;
  }

  unblock(from: number, to: number): void {
    const link = this.#link(from, to);
    link.blocked = false;
    for (const arrive of link.held.splice(0)) arrive();
  }

  clog(from: number, to: number, us: number): void {
    this.#link(from, to).clogUs = us;
  }

  heal(): void {
    for (let from = 0; from < this.#links.length; from++) {
      for (let to = 0; to < this.#links.length; to++) {
        this.clog(from, to, 0);
        this.unblock(from, to);
      }
    }
  }

  isBlocked(from: number, to: number): boolean {
    return this.#link(from, to).blocked;
  }

  message(from: number, to: number, deliver: () => void): void {
    const { plan } = this;
    const link = this.#link(from, to);
    if (link.blocked || this.#prng.chance(plan.messageLoss)) return;
    const copies = this.#prng.chance(plan.messageDouble) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const slowdown = this.#prng.chance(plan.messageStraggles) ? 100 : 1;
      const tookUs = this.#prng.between(1, plan.messageDelayUsMax) * slowdown + link.clogUs;
      this.#queue.after(tookUs, () => {
        if (!link.blocked) deliver();
      });
    }
  }

  /**
   * `arrive` gets the bytes as they are then, for the same put several times when they are torn at first or come
   * again late. `place` names where they go. `denied` is called when the put is reported as failed.
   */
  put(
    from: number,
    to: number,
    place: number,
    bytes: Uint8Array,
    arrive: (bytes: Uint8Array) => void,
    denied: () => void,
  ): void {
    const { plan } = this;
    const prng = this.#prng;
    const link = this.#link(from, to);
    if (plan.putDenied > 0 && prng.chance(plan.putDenied)) this.#queue.after(prng.between(1, 20_000), denied);
    if (plan.putLost > 0 && prng.chance(plan.putLost)) return;
    if (plan.putStale > 0) this.#maybeStale(link, place, bytes, arrive);
    const harmed = plan.putHarmed > 0 && prng.chance(plan.putHarmed) ? flipOneBit(bytes, prng) : bytes;
    const cut = plan.putCut > 0 && prng.chance(plan.putCut);
    const torn = cut || (plan.putTorn > 0 && prng.chance(plan.putTorn)) ? tear(harmed, prng) : undefined;
    const begin = (): void => {
      const tookUs = prng.between(0, plan.putDelayUsMax) + link.clogUs;
      const atUs = Math.max(link.lastArrivalUs, this.#queue.nowUs + tookUs);
      const wholeUs = torn === undefined ? atUs : atUs + prng.between(1, 200);
      link.lastArrivalUs = wholeUs;
      if (torn !== undefined) this.#queue.at(atUs, () => arrive(torn));
      if (!cut) this.#queue.at(wholeUs, () => arrive(harmed));
    };
    if (link.blocked) link.held.push(begin);
    else begin();
  }

  /** What lay at this place before may come once more, out of order. */
  #maybeStale(link: Link, place: number, bytes: Uint8Array, arrive: (bytes: Uint8Array) => void): void {
    const before = this.#places.get(place);
    if (before !== undefined && this.#prng.chance(this.plan.putStale) && !link.blocked) {
      this.#queue.after(this.#prng.between(1, 50_000), () => arrive(before));
    }
    this.#places.set(place, bytes);
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
