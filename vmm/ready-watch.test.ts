import { describe, expect, it } from 'vitest';
import { entryKind } from './io/qemu/layout.ts';
import { RingConsumer, RingProducer } from './io/ring.ts';
import { ReadyWatch } from './ready-watch.ts';

const ringBytes = 4096;

/** What a guest says, frames among it, in a ring that nobody empties. */
class HeldRing {
  readonly #data = new Uint8Array(ringBytes);
  readonly #head = Uint32Array.of(0);
  readonly #tail = Uint32Array.of(0);
  readonly #producer = new RingProducer(this.#data, this.#head, 0, () => this.#tail[0] ?? 0);

  readHeld(): RingConsumer {
    return new RingConsumer(this.#data, this.#head, 0, Uint32Array.of(this.#head[0] ?? 0), 0);
  }

  /** Byte by byte, as a UART does it. */
  say(words: string): void {
    for (const byte of Buffer.from(words, 'latin1')) this.#push(entryKind.serial, Uint8Array.of(byte));
  }

  send(frame: string): void {
    this.#push(entryKind.frame, Buffer.from(frame));
  }

  #push(kind: number, payload: Uint8Array): void {
    expect(this.#producer.push(kind, payload)).toBe(true);
    this.#tail[0] = this.#head[0] ?? 0;
  }
}

describe('a ready marker on a serial line that is held', () => {
  it('is seen once, whole or in pieces, with frames between its bytes', () => {
    const ring = new HeldRing();
    const watch = new ReadyWatch(ring, 'ready!');
    expect(watch.look()).toBe(false);
    ring.say('booting\r\nrea');
    expect(watch.look()).toBe(false);
    ring.send('a frame that says ready!');
    ring.say('dy');
    expect(watch.look()).toBe(false);
    ring.say('! and more');
    expect(watch.look()).toBe(true);
    ring.say('ready!');
    expect(watch.look()).toBe(false);
  });

  it('is not seen before its last byte, nor in what was said before the watch began', () => {
    const ring = new HeldRing();
    ring.say('ready!');
    const watch = new ReadyWatch(ring, 'ready!');
    ring.say('readyready');
    expect(watch.look()).toBe(false);
    ring.say('!');
    expect(watch.look()).toBe(true);
  });

  it('is seen later where so much was said that the ring was filled anew meanwhile', () => {
    const ring = new HeldRing();
    const watch = new ReadyWatch(ring, 'ready!');
    for (let line = 0; line < ringBytes; line++) ring.say('x');
    ring.send('x'.repeat(1000));
    watch.look();
    ring.say('ready!');
    expect(watch.look()).toBe(true);
  });
});
