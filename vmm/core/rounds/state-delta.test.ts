import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { crc32cByTables } from '../falcon/crc32c.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import { StateBase } from './state-delta.ts';

const states = fc.uint8Array({ maxLength: 400 });

function pairOn(base: Uint8Array): [StateBase, StateBase] {
  const pair: [StateBase, StateBase] = [new StateBase(crc32cByTables), new StateBase(crc32cByTables)];
  for (const side of pair) side.keep(base);
  return pair;
}

describe("a state's delta", () => {
  it('gives back exactly the state, whatever changed and however long it is', () => {
    fc.assert(
      fc.property(states, states, fc.array(fc.nat(399)), (base, other, changed) => {
        const near = base.slice();
        for (const at of changed) if (at < near.length) near[at] = (near[at] ?? 0) + 1;
        const [leader, backup] = pairOn(base);
        for (const state of [near, other]) {
          const delta = leader.deltaOf(state);
          if (delta !== undefined) expect(backup.apply(delta)).toEqual(state);
        }
      }),
    );
  });

  it('is short where little changed, and not made where the whole is shorter', () => {
    const base = new Uint8Array(60_000).fill(3);
    const [leader] = pairOn(base);
    const state = base.slice();
    state[77] = 1;
    state[50_000] = 2;
    expect(leader.deltaOf(state)?.length).toBe(16 + 2 * 9);
    expect(leader.deltaOf(new Uint8Array(60_000).fill(9))).toBeUndefined();
  });

  it('whose base is not here asks for the whole; one that makes no sense is refused', () => {
    const base = new Uint8Array(100).fill(3);
    const [leader, backup] = pairOn(base);
    const state = base.slice();
    state[5] = 9;
    const delta = leader.deltaOf(state) ?? new Uint8Array(0);
    backup.keep(state);
    expect(backup.apply(delta)).toBeUndefined();
    expect(new StateBase(crc32cByTables).apply(delta)).toBeUndefined();
    backup.keep(base);
    const harmed = delta.slice();
    harmed[delta.length - 1] = 8;
    expect(() => backup.apply(harmed)).toThrow(ExchangeRefusal);
    expect(() => backup.apply(delta.subarray(0, 20))).toThrow(/ends within a run/);
    const past = delta.slice();
    new DataView(past.buffer).setUint32(16, 100, true);
    expect(() => backup.apply(past)).toThrow(/goes past/);
  });
});
