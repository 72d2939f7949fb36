import fc from 'fast-check';
import { expect, it } from 'vitest';
import { recordMemory } from '../falcon/record.ts';
import {
  frameBytesAt,
  frameBytesInRound,
  frameOffsetAt,
  ROUND_HEADER_BYTES,
  roundExtent,
  roundReleasedIndex,
  writeFrame,
  writeRoundHeader,
} from './round-record.ts';

it('a round read back has the extent, the released index and every frame that was written', () => {
  fc.assert(
    fc.property(
      fc.record({ untilNs: fc.maxSafeNat(), realUsMax: fc.nat(), untilQuiet: fc.boolean() }),
      fc.maxSafeNat(),
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 1600 }), { maxLength: 20 }),
      (extent, released, frames) => {
        const memory = recordMemory(new Uint8Array(64 * 1024));
        const at = 64;
        writeRoundHeader(memory, at, extent, released);
        let end = at + ROUND_HEADER_BYTES;
        for (const frame of frames) end = writeFrame(memory, end, frame, 0, frame.length);
        expect(roundExtent(memory, at)).toEqual(extent);
        expect(roundReleasedIndex(memory, at)).toBe(released);
        let read = at + ROUND_HEADER_BYTES;
        for (const frame of frames) {
          const bytes = frameBytesAt(memory, read);
          expect(memory.bytes.subarray(frameOffsetAt(read), frameOffsetAt(read) + bytes)).toEqual(frame);
          read += frameBytesInRound(bytes);
        }
        expect(read).toBe(end);
      },
    ),
  );
});
