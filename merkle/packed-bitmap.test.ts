import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packBitmap, packedBytesMax, unpackBitmap } from './packed-bitmap.ts';

const refusal = (code: string): Error => expect.objectContaining({ code }) as Error;

function packed(words: Uint32Array): Uint8Array {
  const out = new Uint8Array(packedBytesMax(words.length));
  return out.subarray(0, packBitmap(words, out));
}

/** Words of which many are zero, some in long runs. */
const bitmaps = fc
  .array(fc.tuple(fc.nat(40), fc.array(fc.nat(0xffff_ffff), { maxLength: 5 })), { maxLength: 30 })
  .map((runs) =>
    Uint32Array.from(runs.flatMap(([zeros, words]) => [...new Array<number>(zeros).fill(0), ...words])),
  );

describe('a packed bitmap', () => {
  it('comes out as it went in, and takes no more than the most', () => {
    fc.assert(
      fc.property(bitmaps, (words) => {
        const out = new Uint32Array(words.length).fill(99);
        unpackBitmap(packed(words), out);
        expect(out).toEqual(words);
      }),
    );
  });

  it('may have runs longer than a count can tell', () => {
    for (const word of [0, 1]) {
      const words = new Uint32Array(200_000).fill(word);
      words[150_000] = 7;
      const out = new Uint32Array(words.length);
      unpackBitmap(packed(words), out);
      expect(Buffer.from(out.buffer).equals(Buffer.from(words.buffer))).toBe(true);
    }
  });

  it('of a large machine with few dirty pages is small', () => {
    const words = new Uint32Array(32_768);
    for (let page = 0; page < 300; page++) words[page * 100] = 1;
    expect(packed(words).length).toBeLessThan(2_500);
  });

  it('of another size, cut short, too long or with runs that do not fit is refused', () => {
    const words = Uint32Array.of(0, 0, 5, 0, 6);
    const good = packed(words);
    const out = new Uint32Array(5);
    for (const length of [4, 6]) {
      expect(() => unpackBitmap(good, new Uint32Array(length))).toThrow(refusal('GAIA_MERKLE_BITMAP_SIZE'));
    }
    for (let end = 0; end < good.length; end++) {
      expect(() => unpackBitmap(good.subarray(0, end), out)).toThrow(/bitmap/);
    }
    expect(() => unpackBitmap(Uint8Array.of(...good, 0), out)).toThrow(refusal('GAIA_MERKLE_BITMAP_FORM'));
    const endless = Uint8Array.of(5, 0, 0, 0, 0, 0, 0, 0);
    expect(() => unpackBitmap(endless, out)).toThrow(refusal('GAIA_MERKLE_BITMAP_FORM'));
    const past = Uint8Array.of(5, 0, 0, 0, 6, 0, 0, 0);
    expect(() => unpackBitmap(past, out)).toThrow(refusal('GAIA_MERKLE_BITMAP_FORM'));
  });

  it('of any content never writes past the end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(20), (bytes, length) => {
        const whole = new Uint32Array(length + 4).fill(99);
        try {
          unpackBitmap(Uint8Array.of(length, 0, 0, 0, ...bytes), whole.subarray(0, length));
        } catch (error) {
          expect(error).toMatchObject({ code: 'GAIA_MERKLE_BITMAP_FORM' });
        }
        expect([...whole.subarray(length)]).toEqual([99, 99, 99, 99]);
      }),
    );
  });
});
