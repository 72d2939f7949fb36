/**
 * The least that an agent does to serve a guest alone: what came from the tap goes round by round to the guest, what
 * the guest sends is held and released. No copies but from ring to ring, nothing allocated for a frame.
 */
import type { PortGuest } from '../../framework/port-guest.ts';

/** Real time of a round at most; it ends earlier when the guest has gone quiet. */
const roundNsMax = 2_000_000;

export class FramePump {
  rounds = 0;
  framesIn = 0;
  readonly #guest: PortGuest;

  /** The guest stands. */
  constructor(guest: PortGuest) {
    this.#guest = guest;
    guest.port.divertIngress(true);
  }

  /** One round; returns when the guest stands again. */
  round(): void {
    const { port } = this.#guest;
    this.#deliver();
    this.#guest.beginWithin({ untilIdle: true, realNsMax: roundNsMax });
    const { holdHead } = this.#guest.awaitStopped();
    port.release(holdHead);
    this.rounds++;
  }

  #deliver(): void {
    const { ingress, deliver } = this.#guest.port;
    while (ingress.next()) {
      const place = deliver.reserve(ingress.length);
      // The guest takes no more for now: the rest waits in the ingress ring.
      if (place === -1) return;
      deliver.data.set(ingress.data.subarray(ingress.offset, ingress.offset + ingress.length), place);
      deliver.commit(ingress.kind, ingress.length);
      ingress.consume();
      this.framesIn++;
    }
  }
}
