import { expect, it } from 'vitest';
import { KnownHashes } from './known-hashes.ts';

const hashes = (...values: number[]) =>
  Uint32Array.from(values.flatMap((value) => new Array<number>(8).fill(value)));

it('a page has changed when it is noted first, and whenever its hash is another one than before', () => {
  const known = new KnownHashes(2);
  const two = hashes(7, 8);
  expect(known.note(63, two, 0)).toBe(true);
  expect(known.note(63, two, 0)).toBe(false);
  expect(known.note(62, two, 0)).toBe(true);
  expect(known.note(63, two, 8)).toBe(true);
  expect(known.note(63, two, 0)).toBe(true);
});

it('hashes that differ in their last word differ', () => {
  const known = new KnownHashes(1);
  const [one, other] = [hashes(1), hashes(1)];
  other[7] = 2;
  expect(known.note(0, one, 0)).toBe(true);
  expect(known.note(0, other, 0)).toBe(true);
});

it('what was forgotten has changed, also where its hash is zero', () => {
  const known = new KnownHashes(1);
  expect(known.note(3, hashes(0), 0)).toBe(true);
  known.forget();
  expect(known.note(3, hashes(0), 0)).toBe(true);
});
