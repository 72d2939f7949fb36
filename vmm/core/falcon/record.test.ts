import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LogIndex, Term } from '../ids.ts';
import { crc32cByTables, crc32cWith } from './crc32c.ts';
import {
  encodeRecord,
  recordBytesFor,
  recordChecksum,
  recordCommitIndex,
  recordCount,
  recordIndex,
  recordIsIntact,
  recordMemory,
  recordOriginTerm,
  recordPayloadBytes,
  recordPreviousChecksum,
  recordPreviousTerm,
  recordType,
  recordWriterTerm,
  RECORD_HEADER_BYTES,
  stampRecord,
  type RecordMemory,
} from './record.ts';

const term = (value: number): Term => value as Term;
const at = (value: number): LogIndex => value as LogIndex;

function recordOf(payload: Uint8Array, offset = 0): RecordMemory {
  const memory = recordMemory(new Uint8Array(offset + recordBytesFor(payload.length)).fill(0xaa));
  memory.bytes.set(payload, offset + RECORD_HEADER_BYTES);
  encodeRecord(memory, offset, term(7), at(2 ** 40 + 3), term(6), -5, at(2 ** 33), 17, 3, payload.length, crc32cByTables); // prettier-ignore
  return memory;
}

describe('the checksum', () => {
  it('is CRC-32C as RFC 3720 has it', () => {
    const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
    expect(crc32cByTables(ascii('123456789'), 0, 9, 0) >>> 0).toBe(0xe3069283);
    expect(crc32cByTables(new Uint8Array(32), 0, 32, 0) >>> 0).toBe(0x8a9136aa);
    expect(crc32cByTables(new Uint8Array(32).fill(0xff), 0, 32, 0) >>> 0).toBe(0x62a8ab43);
    const rising = Uint8Array.from({ length: 32 }, (_, value) => value);
    expect(crc32cByTables(rising, 0, 32, 0) >>> 0).toBe(0x46dd794e);
  });

  it('is the same in one piece or continued, at any offset, by tables or by the whole array', () => {
    const wholeArray = crc32cWith(crc32cByTables, 16);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(80), fc.nat(20), (bytes, cutAt, offset) => {
        const cut = Math.min(cutAt, bytes.length);
        const shifted = new Uint8Array(offset + bytes.length);
        shifted.set(bytes, offset);
        const whole = crc32cByTables(bytes, 0, bytes.length, 0);
        const head = crc32cByTables(shifted, offset, cut, 0);
        expect(crc32cByTables(shifted, offset + cut, bytes.length - cut, head)).toBe(whole);
        expect(wholeArray(shifted, offset, bytes.length, 0)).toBe(whole);
      }),
    );
  });
});

describe('a record', () => {
  it('gives back what was written, at any offset, indices above 2^32 included', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(5), (payload, words) => {
        const offset = words * 8;
        const memory = recordOf(payload, offset);
        expect(recordIsIntact(memory, offset, recordBytesFor(payload.length), crc32cByTables)).toBe(true);
        expect(recordWriterTerm(memory, offset)).toBe(7);
        expect(recordOriginTerm(memory, offset)).toBe(7);
        expect(recordIndex(memory, offset)).toBe(2 ** 40 + 3);
        expect(recordCommitIndex(memory, offset)).toBe(2 ** 33);
        expect(recordPreviousTerm(memory, offset)).toBe(6);
        expect(recordPreviousChecksum(memory, offset)).toBe(-5);
        expect(recordType(memory, offset)).toBe(17);
        expect(recordCount(memory, offset)).toBe(3);
        expect(recordPayloadBytes(memory, offset)).toBe(payload.length);
      }),
    );
  });

  it('is refused whichever of its bits is flipped', () => {
    const memory = recordOf(Uint8Array.of(1, 2, 3, 4, 5));
    const length = memory.bytes.length;
    for (let bit = 0; bit < length * 8; bit++) {
      memory.bytes[bit >> 3] = (memory.bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(recordIsIntact(memory, 0, length, crc32cByTables), `bit ${bit}`).toBe(false);
      memory.bytes[bit >> 3] = (memory.bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    }
    expect(recordIsIntact(memory, 0, length, crc32cByTables)).toBe(true);
  });

  it('is refused when any part of it has not arrived, head or tail', () => {
    const whole = recordOf(Uint8Array.from({ length: 200 }, (_, value) => value + 1));
    fc.assert(
      fc.property(fc.nat(whole.bytes.length - 1), fc.boolean(), (cut, headMissing) => {
        const torn = recordMemory(whole.bytes.slice());
        if (headMissing) torn.bytes.fill(0, 0, cut + 1);
        else torn.bytes.fill(0, cut === 0 ? 0 : Math.min(cut, RECORD_HEADER_BYTES + 199));
        expect(recordIsIntact(torn, 0, torn.bytes.length, crc32cByTables)).toBe(false);
      }),
    );
  });

  it('is refused when its length is not the one it states, and memory of any content never crashes', () => {
    const memory = recordOf(Uint8Array.of(1, 2, 3));
    expect(recordIsIntact(memory, 0, memory.bytes.length - 8, crc32cByTables)).toBe(false);
    expect(recordIsIntact(memory, 8, memory.bytes.length, crc32cByTables)).toBe(false);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(recordIsIntact(recordMemory(bytes), 0, bytes.length, crc32cByTables)).toBe(false);
      }),
    );
  });

  it('keeps its name when a later leader sends it again', () => {
    const memory = recordOf(Uint8Array.of(9, 9));
    const name = recordChecksum(memory, 0);
    stampRecord(memory, 0, term(12), at(2 ** 35), crc32cByTables);
    expect(recordIsIntact(memory, 0, memory.bytes.length, crc32cByTables)).toBe(true);
    expect(recordChecksum(memory, 0)).toBe(name);
    expect(recordOriginTerm(memory, 0)).toBe(7);
    expect(recordWriterTerm(memory, 0)).toBe(12);
    expect(recordCommitIndex(memory, 0)).toBe(2 ** 35);
  });
});
