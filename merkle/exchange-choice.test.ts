import { describe, expect, it } from 'vitest';
import { ExchangeChoice } from './exchange-choice.ts';

/** Every nth of `leafCount` leaves. */
const everyNth = (leafCount: number, step: number): Uint32Array =>
  Uint32Array.from({ length: Math.ceil(leafCount / step) }, (_, at) => at * step);

/** A choice that has seen eight rounds of the same kind. */
function choiceAfter(
  link: { roundTripUs: number; bytesPerUs: number },
  leafCount: number,
  leaves: Uint32Array,
): ExchangeChoice {
  const choice = new ExchangeChoice(link);
  for (let round = 0; round < 8; round++) choice.observe(leafCount, leaves, leaves.length);
  return choice;
}

const slow = { roundTripUs: 50, bytesPerUs: 12.5 };
const fast = { roundTripUs: 10, bytesPerUs: 10_000 };

describe('the choice between traversal and flat exchange', () => {
  it('goes by the levels where few pages differ, and begins at the leaves where most do', () => {
    const leaves = 100_000;
    const few = choiceAfter(slow, leaves, everyNth(leaves, 5000));
    const most = choiceAfter(slow, leaves, everyNth(leaves, 2));
    expect(few.levelFor(leaves)).toBeGreaterThan(0);
    expect(most.levelFor(leaves)).toBe(0);
  });

  it('tells pages that lie together from as many that are scattered', () => {
    const leaves = 100_000;
    const together = Uint32Array.from({ length: 10_000 }, (_, at) => at);
    const scattered = everyNth(leaves, 10);
    expect(choiceAfter(slow, leaves, together).expectedUs(leaves, 2)).toBeLessThan(
      choiceAfter(slow, leaves, scattered).expectedUs(leaves, 2) / 2,
    );
  });

  it('asks a small union at once, whatever differs', () => {
    expect(new ExchangeChoice(fast).levelFor(300)).toBe(0);
    expect(choiceAfter(fast, 300, Uint32Array.of(7)).levelFor(300)).toBe(0);
  });

  it('expects what a traversal really sends', () => {
    const leaves = 4096;
    const choice = choiceAfter({ roundTripUs: 0, bytesPerUs: 16 }, leaves, Uint32Array.of(1, 2, 4000));
    // Two of 16 nodes differ at level 2, two of 256 at level 1: 16 + 32 + 32 hashes.
    expect(choice.expectedUs(leaves, 2)).toBeCloseTo(80 * 1.025, 6);
    expect(choice.expectedUs(leaves, 0)).toBeCloseTo(4096 * 1.025, 6);
  });

  it('follows a load that changes within a few rounds', () => {
    const leaves = 100_000;
    const choice = choiceAfter(slow, leaves, everyNth(leaves, 2));
    const now = everyNth(leaves, 20_000);
    let rounds = 0;
    while (choice.levelFor(leaves) === 0 && rounds < 100) {
      choice.observe(leaves, now, now.length);
      rounds++;
    }
    expect(rounds).toBeLessThanOrEqual(24);
  });

  it('learns nothing from a round without differences, and offers level 0 for no leaves', () => {
    const choice = new ExchangeChoice(slow);
    const before = choice.expectedUs(10_000, 2);
    choice.observe(10_000, new Uint32Array(0), 0);
    expect(choice.expectedUs(10_000, 2)).toBe(before);
    expect(choice.levelFor(0)).toBe(0);
    expect(choice.levelFor(1)).toBe(0);
  });
});
