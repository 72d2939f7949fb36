import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { entryBytes, RingConsumer, RingHarmedError, RingProducer } from './ring.ts';

const capacity = 256;

/** Both ends over one piece of memory, as two processes see it; positions begin at `start`. */
function ring(start = 0) {
  const data = new Uint8Array(capacity);
  const words = Uint32Array.of(start, start);
  const producer = new RingProducer(data, words, 0, () => words[1] ?? 0);
  const consumer = new RingConsumer(data, words, 0, words, 1);
  return { data, words, producer, consumer };
}

describe('a ring', () => {
  it('hands over every payload whole and in order, whatever the sizes and wherever it wraps', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 90 }), { maxLength: 60 }),
        fc.constantFrom(0, 0xffff_ff00, 0xffff_fff8, 64),
        (payloads, start) => {
          const { producer, consumer } = ring(start);
          const received: Uint8Array[] = [];
          const takeAll = () => {
            while (consumer.next()) {
              received.push(consumer.copy());
              consumer.consume();
            }
          };
          for (const payload of payloads) {
            if (!producer.push(7, payload)) {
              takeAll();
              expect(producer.push(7, payload)).toBe(true);
            }
          }
          takeAll();
          expect(received).toEqual(payloads);
        },
      ),
    );
  });

  it('refuses a payload that does not fit now and keeps what it holds', () => {
    const { producer, consumer } = ring();
    expect(producer.push(1, new Uint8Array(100))).toBe(true);
    expect(producer.push(1, new Uint8Array(200))).toBe(false);
    expect(consumer.next()).toBe(true);
    expect(consumer.length).toBe(100);
  });

  it('shows an entry only once it is committed', () => {
    const { producer, consumer } = ring();
    const at = producer.reserve(8);
    expect(at).toBeGreaterThanOrEqual(0);
    expect(consumer.hasEntry).toBe(false);
    producer.commit(3, 5);
    expect(consumer.next()).toBe(true);
    expect([consumer.kind, consumer.length]).toEqual([3, 5]);
  });

  it.each([
    ['longer than the ring', 0xffff_fff0],
    ['longer than what was published', 64],
  ])('refuses an entry that claims to be %s', (_what, claimed) => {
    const { data, words, consumer } = ring();
    new Uint32Array(data.buffer)[0] = claimed;
    new Uint32Array(data.buffer)[1] = 1;
    words[0] = entryBytes(8);
    expect(() => consumer.next()).toThrow(RingHarmedError);
  });

  it.each([
    ['further ahead than the ring is long', 8 * 1024],
    ['behind what was read', 2 ** 32 - 8],
    ['in the middle of an entry', 4],
  ])('refuses a producer that claims to stand %s', (_what, claimed) => {
    const { words, consumer } = ring();
    words[0] = claimed;
    expect(() => consumer.next()).toThrow(RingHarmedError);
    expect(() => consumer.count(Infinity)).toThrow(RingHarmedError);
  });

  it('refuses an entry that is longer than its reader takes, and none of that length', () => {
    class ShortRing extends RingConsumer {
      protected override get payloadBytesMax(): number {
        return 16;
      }
    }
    const { data, words, producer } = ring();
    const consumer = new ShortRing(data, words, 0, words, 1);
    producer.push(1, new Uint8Array(16));
    producer.push(1, new Uint8Array(17));
    expect(consumer.next()).toBe(true);
    consumer.consume();
    expect(() => consumer.next()).toThrow(RingHarmedError);
    expect(() => consumer.count(Infinity)).toThrow(RingHarmedError);
  });

  it('continues where the ring stood whose contents were moved into it', () => {
    const from = ring();
    from.producer.push(1, Uint8Array.of(1));
    from.producer.push(1, Uint8Array.of(2));
    from.consumer.next();
    from.consumer.consume();
    const data = from.data.slice();
    const words = Uint32Array.of(0, 0);
    const producer = new RingProducer(
      data,
      words,
      0,
      () => words[1] ?? 0,
      (tail) => (words[1] = tail),
    );
    producer.moveTo(from.words[1] ?? 0, from.producer.head);
    const consumer = new RingConsumer(data, words, 0, words, 1);
    expect(consumer.next()).toBe(true);
    expect([...consumer.copy()]).toEqual([2]);
  });
});
