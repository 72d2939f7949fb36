/**
 * The least that an agent does to serve a guest alone: what came from the tap goes round by round to the guest, what
 * the guest sends is held and released. No copies but from ring to ring, nothing allocated for a frame.
 */
import type { PortGuest } from '../../framework/port-guest.ts';
import { native } from '../../../native/binding.ts';

/** Real time of a round at most; it ends earlier when the guest has gone quiet. */
const roundNsMax = 2_000_000;
/** How long a guest that runs on is left alone when nothing comes in. */
const frameWaitUs = 1000;

export class FramePump {
  rounds = 0;
  framesIn = 0;
  readonly #guest: PortGuest;

  /** The guest stands. */
  constructor(guest: PortGuest) {
    this.#guest = guest;
    guest.port.divertIngress(true);
  }

  /**
   * No rounds: the guest runs, gets what comes in at once, and sends as it likes. What the rings themselves cost.
   * Lasts for so many looks at the ingress ring.
   */
  atOnce(looks: number): void {
    const { port } = this.#guest;
    const news = Int32Array.of(port.doorbellFd);
    this.#guest.beginWithin({}, [], true);
    for (let look = 0; look < looks; look++) {
      if (native().waitReadable(news, new Uint8Array(1), frameWaitUs) > 0) native().drain(port.doorbellFd);
      this.#deliver();
      // Also what the guest had no buffer for before.
      if (this.#guest.deliverTail !== port.deliver.head) port.deliverLive(port.deliver.head);
    }
    port.stop();
    this.#guest.takeStopped();
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
