import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { whyNotLinearizable, type RegisterOperation } from './linearizability.ts';

const write = (value: string, invokedAt: number, repliedAt: number): RegisterOperation => {
  return { kind: 'write', value, invokedAt, repliedAt };
};
const read = (value: string | null, invokedAt: number, repliedAt: number): RegisterOperation => {
  return { kind: 'read', value, invokedAt, repliedAt };
};

describe('whyNotLinearizable', () => {
  it('accepts reads of an empty register and of the last write', () => {
    expect(whyNotLinearizable([read(null, 0, 1), write('a', 2, 3), read('a', 4, 5)])).toBeUndefined();
  });

  it('accepts either value while a write is under way, and refuses to go back', () => {
    const overlapping = [write('a', 0, 1), write('b', 2, 10), read('a', 3, 4), read('b', 5, 6)];
    expect(whyNotLinearizable(overlapping)).toBeUndefined();
    expect(whyNotLinearizable([...overlapping, read('a', 7, 8)])).toContain('"read"');
  });

  it('refuses a stale read and a lost write', () => {
    expect(whyNotLinearizable([write('a', 0, 1), write('b', 2, 3), read('a', 4, 5)])).toContain('"a"');
    expect(whyNotLinearizable([write('a', 0, 1), read(null, 2, 3)])).toContain('null');
  });

  it('lets a write without a reply happen late, or never, but not twice', () => {
    const lost = write('b', 2, Infinity);
    expect(whyNotLinearizable([write('a', 0, 1), lost, read('a', 3, 4)])).toBeUndefined();
    expect(whyNotLinearizable([write('a', 0, 1), lost, read('a', 3, 4), read('b', 5, 6)])).toBeUndefined();
    expect(
      whyNotLinearizable([write('a', 0, 1), lost, read('b', 3, 4), write('c', 5, 6), read('b', 7, 8)]),
    ).toContain('"b"');
  });

  it('accepts whatever an atomic register answered, however its clients overlap', () => {
    const step = fc.record({
      writes: fc.boolean(),
      before: fc.integer({ min: 0, max: 30 }),
      after: fc.integer({ min: 0, max: 30 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let held: string | null = null;
        // Each takes effect at its own instant, ten apart: up to seven overlap.
        const history = steps.map(({ writes, before, after }, number): RegisterOperation => {
          const at = number * 10;
          if (writes) held = String(number);
          return {
            kind: writes ? 'write' : 'read',
            value: held,
            invokedAt: at - before,
            repliedAt: at + after,
          };
        });
        expect(whyNotLinearizable(history)).toBeUndefined();
      }),
    );
  });
});
