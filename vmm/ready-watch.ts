/**
 * Learns from the guest's serial line, as QEMU holds it, that its service answers: the image says so by a marker.
 * Guarantee: nothing is taken from the line, and it is learnt on every executing replica, also where what the guest
 * says is dropped.
 */
import { entryKind } from './io/qemu/layout.ts';
import type { GuestPort } from './io/qemu/port.ts';
import { RingHarmedError, type RingConsumer } from './io/ring.ts';

type HeldOutput = Pick<GuestPort, 'readHeld'>;

export class ReadyWatch {
  readonly #port: HeldOutput;
  readonly #marker: string;
  #line: RingConsumer;
  /** What was said last, shorter than the marker. */
  #said = '';
  #seen = false;

  /** The guest has said nothing yet. */
  constructor(port: HeldOutput, marker: string) {
    this.#port = port;
    this.#marker = marker;
    this.#line = port.readHeld();
  }

  /** Once: the marker has been said since the last look. */
  look(): boolean {
    if (this.#seen) return false;
    try {
      while (this.#line.next()) {
        if (this.#line.kind === entryKind.serial) this.#hear();
        this.#line.consume();
      }
    } catch (error) {
      if (!(error instanceof RingHarmedError)) throw error;
      // So much was said since the last look that the ring has been filled anew.
      this.#line = this.#port.readHeld();
    }
    return this.#seen;
  }

  #hear(): void {
    const { data, offset, length } = this.#line;
    const said = this.#said + Buffer.from(data.buffer, data.byteOffset + offset, length).toString('latin1');
    this.#seen ||= said.includes(this.#marker);
    this.#said = said.slice(Math.max(0, said.length - this.#marker.length + 1));
  }
}
