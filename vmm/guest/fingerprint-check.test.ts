/** Fingerprints of plain memory, whose "QEMU" marks as dirty what a test says. */
import { describe, expect, it } from 'vitest';
import { setBit } from '../../merkle/bitmap.ts';
import { PAGE_WORDS } from '../../merkle/page-space.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { PageHasher } from '../io/page-hasher.ts';
import { FingerprintCheck } from './fingerprint-check.ts';

const pageCount = 64;

class Guest {
  readonly words = new Uint32Array(pageCount * PAGE_WORDS);
  readonly dirtyBitmap = new Uint32Array(2);
  readonly blocks = [
    { memory: this.words.buffer, bytes: this.words.byteLength, pageCount, bitmapBit: 0, name: 'ram' },
  ];
  collections = 0;
  readonly check = new FingerprintCheck(this as unknown as GuestPort);
  #dirty: number[] = [];

  write(page: number, value: number): void {
    this.words[page * PAGE_WORDS] = value;
    this.#dirty.push(page);
  }

  /** Marked as written by the host's own doing. */
  touch(page: number): void {
    this.#dirty.push(page);
  }

  collect(): number {
    this.collections++;
    this.dirtyBitmap.fill(0);
    for (const page of this.#dirty) setBit(this.dirtyBitmap, page);
    const { size } = new Set(this.#dirty);
    this.#dirty = [];
    return size;
  }

  take(): string {
    return Buffer.from(this.check.take().hash).toString('hex');
  }
}

function pair(): [Guest, Guest] {
  const guests: [Guest, Guest] = [new Guest(), new Guest()];
  // The first comparison: from here on every page is known on both sides.
  for (const guest of guests) {
    for (let page = 0; page < pageCount; page++) guest.touch(page);
    guest.take();
  }
  return guests;
}

describe('two guests', () => {
  it('that have changed alike have one fingerprint, whatever else is marked as written', () => {
    const [one, other] = pair();
    for (const guest of [one, other]) {
      guest.write(5, 1);
      guest.write(9, 2);
    }
    one.touch(30);
    other.touch(31);
    other.touch(32);
    expect(one.take()).toBe(other.take());
    expect(one.check.take().pages).toBe(0);
  });

  it.each([
    ['of which one has changed a page', (_one: Guest, other: Guest) => other.write(7, 1)],
    [
      'that have changed a page to different contents',
      (one: Guest, other: Guest) => {
        one.write(7, 1);
        other.write(7, 2);
      },
    ],
    [
      'that have changed different pages alike',
      (one: Guest, other: Guest) => {
        one.write(7, 1);
        other.write(8, 1);
      },
    ],
  ])('%s have different ones', (_what, change) => {
    const [one, other] = pair();
    change(one, other);
    expect(one.take()).not.toBe(other.take());
  });

  it('of which one has changed a page and back do not hide that the other one has changed it', () => {
    const [one, other] = pair();
    one.write(7, 1);
    one.write(7, 0);
    other.write(7, 1);
    expect(one.take()).not.toBe(other.take());
  });
});

it('what somebody else has collected is known no more: it counts as changed when it is written next', () => {
  const [one] = pair();
  one.write(7, 1);
  one.collect();
  one.write(7, 0);
  expect(one.check.take().pages).toBe(1);
});

it('a comparison tells it the hashes of the union that it has collected', () => {
  const [guest] = pair();
  guest.write(7, 1);
  guest.collect();
  const hashes = new Uint8Array(32);
  new PageHasher(guest.blocks).hashPages(Uint32Array.of(7), 1, hashes);
  guest.check.learn(guest.dirtyBitmap, hashes);
  guest.touch(7);
  guest.touch(8);
  expect(guest.check.take().pages).toBe(0);
});
