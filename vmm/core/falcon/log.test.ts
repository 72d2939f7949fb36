import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LogIndex, Term } from '../ids.ts';
import { FalconLog } from './log.ts';

const LIMITS = { storageBytes: 1024, recordsMax: 40, recordBytesMax: 128 };
const index = (value: number): LogIndex => value as LogIndex;

/** A record here is `words` times 8 bytes that all say `mark`; the log does not look inside. */
function append(log: FalconLog, words: number, mark: number): boolean {
  const at = log.room(words * 8);
  if (at === -1) return false;
  log.memory.bytes.fill(mark, at, at + words * 8);
  return log.append(at, words * 8, (mark & 7) as Term, mark);
}

interface Modelled {
  readonly words: number;
  readonly mark: number;
}

type Step =
  | { readonly kind: 'append'; readonly words: number; readonly mark: number }
  | { readonly kind: 'truncate'; readonly by: number }
  | { readonly kind: 'drop'; readonly by: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('append' as const), words: fc.integer({ min: 1, max: 16 }), mark: fc.nat(255) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('truncate' as const), by: fc.nat(5) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('drop' as const), by: fc.nat(5) }) },
  ),
  { maxLength: 200 },
); // prettier-ignore

function expectSame(log: FalconLog, first: number, model: readonly Modelled[]): void {
  expect(log.firstIndex).toBe(first);
  expect(log.lastIndex).toBe(first + model.length - 1);
  model.forEach(({ words, mark }, position) => {
    const at = log.offsetAt(index(first + position));
    expect(log.bytesAt(index(first + position))).toBe(words * 8);
    expect(log.checksumAt(index(first + position))).toBe(mark);
    const bytes = log.memory.bytes.subarray(at, at + words * 8);
    expect(bytes.every((byte) => byte === mark)).toBe(true);
  });
}

describe('the log', () => {
  it('keeps every record whole through any mixture of appending, truncating and dropping', () => {
    fc.assert(
      fc.property(steps, (taken) => {
        const log = new FalconLog(LIMITS);
        const model: Modelled[] = [];
        let first = 1;
        for (const step of taken) {
          if (step.kind === 'append') {
            if (append(log, step.words, step.mark)) model.push(step);
          } else if (step.kind === 'truncate') {
            const kept = Math.max(0, model.length - step.by);
            model.length = kept;
            log.truncateTo(index(first + kept - 1));
          } else {
            const dropped = Math.min(step.by, model.length);
            log.dropThrough(index(first + dropped - 1));
            model.splice(0, dropped);
            first += dropped;
          }
          expectSame(log, first, model);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('knows the record before its first one, so that the chain survives dropping', () => {
    const log = new FalconLog(LIMITS);
    for (let mark = 1; mark <= 5; mark++) append(log, 4, mark);
    log.dropThrough(index(3));
    expect(log.matches(index(3), 3 as Term, 3)).toBe(true);
    expect(log.matches(index(3), 2 as Term, 3)).toBe(false);
    expect(log.matches(index(2), 2 as Term, 2)).toBe(false);
    expect(log.matches(index(6), 0 as Term, 0)).toBe(false);
  });

  it('makes room by dropping the oldest records, none above the limit and never the last', () => {
    const log = new FalconLog(LIMITS);
    while (append(log, 16, 1));
    expect(log.lastIndex).toBe(8);
    expect(log.makeRoom(128, 1, index(0))).toBe(false);
    expect(log.makeRoom(256, 1, index(1))).toBe(false);
    expect(log.makeRoom(256, 1, index(8))).toBe(true);
    expect(log.firstIndex).toBe(3);
    expect(log.makeRoom(4096, 1, index(8))).toBe(false);
    expect(log.lastIndex).toBe(8);
    expect(log.firstIndex).toBe(8);
  });

  it('refuses a proposal once what is not committed fills half of it, committed or not counted apart', () => {
    const log = new FalconLog(LIMITS);
    let appended = 0;
    while (log.takesProposal(64, index(0)) && append(log, 8, 1)) appended++;
    expect(appended).toBe((LIMITS.storageBytes / 2 - LIMITS.recordBytesMax) / 64);
    expect(log.takesProposal(64, index(1))).toBe(true);
  });

  it('checks foreign bytes in a place of its own when the storage is full', () => {
    const log = new FalconLog(LIMITS);
    while (append(log, 16, 1));
    const source = Uint8Array.from({ length: 24 }, (_, value) => value);
    const at = log.stage(source, 0, 24);
    expect(at).toBe(LIMITS.storageBytes);
    expect([...log.memory.bytes.subarray(at, at + 24)]).toEqual([...source]);
    expect(log.append(at, 24, 1 as Term, 9)).toBe(false);
    log.dropThrough(index(2));
    expect(log.append(at, 24, 1 as Term, 9)).toBe(true);
    const kept = log.offsetAt(log.lastIndex);
    expect([...log.memory.bytes.subarray(kept, kept + 24)]).toEqual([...source]);
  });

  it('stages bytes from any offset, short or long', () => {
    const log = new FalconLog({ storageBytes: 1 << 16, recordsMax: 4, recordBytesMax: 8192 });
    const source = Uint8Array.from({ length: 8200 }, (_, value) => value * 7);
    for (const [offset, length] of [[0, 8], [1, 56], [3, 4096], [5, 4104], [8, 8192]] as const) {
      const at = log.stage(source, offset, length);
      expect(Buffer.compare(log.memory.bytes.subarray(at, at + length), source.subarray(offset, offset + length))).toBe(0);
    } // prettier-ignore
  });
});
