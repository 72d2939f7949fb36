import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeltaReader, NO_ROOM, writeDelta } from './delta.ts';

const WORDS = 200;

/** Words, and the same with some bytes changed here and there. */
const pairs = fc
  .tuple(
    fc.uint32Array({ minLength: WORDS, maxLength: WORDS }),
    fc.array(fc.tuple(fc.nat(4 * WORDS - 1), fc.nat(255), fc.integer({ min: 1, max: 20 })), {
      maxLength: 30,
    }),
  )
  .map(([base, changes]) => {
    const target = base.slice();
    const bytes = new Uint8Array(target.buffer);
    for (const [at, value, length] of changes) bytes.fill(value, at, at + length);
    return { base, target };
  });

function deltaOf(base: Uint32Array, target: Uint32Array, room = 8192): Uint8Array<ArrayBuffer> | undefined {
  const out = new Uint8Array(room + 3).fill(99);
  const end = writeDelta(base, 0, base.length, target, 0, target.length, out, 3, out.length);
  expect([...out.subarray(0, 3)]).toEqual([99, 99, 99]);
  return end === NO_ROOM ? undefined : out.slice(3, end);
}

function readerOf(delta: Uint8Array<ArrayBuffer>, words: number): DeltaReader {
  const reader = new DeltaReader();
  reader.begin(delta, 0, delta.length, 4 * words);
  return reader;
}

describe('a delta', () => {
  it('makes of its base what it was made from, also the second time', () => {
    fc.assert(
      fc.property(pairs, ({ base, target }) => {
        const delta = deltaOf(base, target) ?? new Uint8Array(1);
        expect(readerOf(delta, WORDS).isWhole()).toBe(true);
        const words = base.slice();
        readerOf(delta, WORDS).applyTo(words, 0);
        expect(words).toEqual(target);
        readerOf(delta, WORDS).applyTo(words, 0);
        expect(words).toEqual(target);
      }),
    );
  });

  it('from a shorter base, or none, takes what is missing as zeros', () => {
    fc.assert(
      fc.property(fc.uint32Array({ maxLength: 50 }), fc.nat(60), (target, baseLength) => {
        const base = target.slice(0, baseLength);
        const delta = deltaOf(base, target) ?? new Uint8Array(1);
        const words = new Uint32Array(target.length);
        words.set(base);
        expect(readerOf(delta, target.length).isWhole()).toBe(true);
        readerOf(delta, target.length).applyTo(words, 0);
        expect(words).toEqual(target);
      }),
    );
  });

  it('of equal words is empty, and of one byte takes three or four', () => {
    const base = new Uint32Array(1024);
    expect(deltaOf(base, base)?.length).toBe(0);
    const target = base.slice();
    target[5] = 0xff00;
    expect(deltaOf(base, target)).toEqual(Uint8Array.of(21, 1, 0xff));
    target.fill(0);
    target[1023] = 0xff00_0000;
    expect(deltaOf(base, target)?.length).toBe(4);
  });

  it('says when it has no room, and writes nothing behind it', () => {
    const base = new Uint32Array(100);
    const target = base.slice().fill(0x0101_0101);
    const out = new Uint8Array(500).fill(99);
    expect(writeDelta(base, 0, 100, target, 0, 100, out, 0, 300)).toBe(NO_ROOM);
    expect(out.subarray(300).every((byte) => byte === 99)).toBe(true);
  });

  it('that is cut short, is past the end, or has an empty run is none', () => {
    const far = [0x80, 0x80, 0x80, 0x80, 1, 1, 5];
    for (const bytes of [[1], [0, 2, 7], [0, 0], [4, 1, 7], [3, 2, 7, 7], [0x80], far]) {
      expect(readerOf(Uint8Array.from(bytes), 1).isWhole()).toBe(false);
    }
    expect(readerOf(Uint8Array.of(3, 1, 7), 1).isWhole()).toBe(true);
  });

  it('of any bytes that pass for one stays within what it is for', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 0, max: 9 }), (bytes, length) => {
        const delta = Uint8Array.from(bytes);
        if (!readerOf(delta, length).isWhole()) return;
        const words = new Uint32Array(20).fill(0x6363_6363);
        readerOf(delta, length).applyTo(words, 5);
        expect(words.subarray(0, 5).every((word) => word === 0x6363_6363)).toBe(true);
        expect(words.subarray(5 + length).every((word) => word === 0x6363_6363)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});
