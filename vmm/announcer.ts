/**
 * Tells the switches of a network that is not ours where the guest is now: again and again while this replica serves,
 * since one announcement may be lost, and a switch may hear of the guest's address from where it was. Guarantee: after
 * `end` nothing is announced.
 */
import { announcement, parseMac } from './io/tap.ts';

/** Soon at first: clients wait. */
const firstMs = 100;
const longestMs = 30_000;
const growth = 3;

export class Announcer {
  readonly #frame: Uint8Array;
  readonly #send: (frame: Uint8Array) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(mac: string, send: (frame: Uint8Array) => void) {
    this.#frame = announcement(parseMac(mac));
    this.#send = send;
  }

  begin(): void {
    this.end();
    this.#after(firstMs);
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #after(waitMs: number): void {
    this.#timer = setTimeout(() => {
      try {
        this.#send(this.#frame);
      } catch {
        // The tap takes nothing now, which is as good as an announcement lost on the wire.
      }
      this.#after(Math.min(longestMs, waitMs * growth));
    }, waitMs);
    this.#timer.unref();
  }
}
