import { expect, it } from 'vitest';
import { crc32cByTables } from '../falcon/crc32c.ts';
import { RecentFrames } from './recent-frames.ts';

const frame = (text: string) => new TextEncoder().encode(text);

class Seen {
  readonly recent = new RecentFrames(crc32cByTables);

  saw(text: string, nowUs = 0): void {
    const bytes = frame(`##${text}`);
    this.recent.saw(bytes, 2, bytes.length - 2, nowUs);
  }

  agreed(text: string): void {
    const bytes = frame(text);
    this.recent.agreed(bytes, 0, bytes.length);
  }

  take(nowUs = 0): string[] {
    return this.recent.take(nowUs).map((bytes) => new TextDecoder().decode(bytes));
  }
}

it('keeps in order what no record holds, each as often as it came', () => {
  const seen = new Seen();
  for (const text of ['a', 'b', 'a', 'c']) seen.saw(text);
  seen.agreed('a');
  seen.agreed('c');
  expect(seen.take()).toEqual(['b', 'a']);
  expect(seen.take()).toEqual([]);
});

it('a frame that comes after its record is no news', () => {
  const seen = new Seen();
  seen.agreed('a');
  seen.saw('a');
  seen.saw('a');
  expect(seen.take()).toEqual(['a']);
});

it('what its sender has sent again by now is forgotten', () => {
  const seen = new Seen();
  seen.saw('old', 0);
  seen.saw('new', 900_000);
  expect(seen.take(1_000_001)).toEqual(['new']);
});

it('is bounded, whatever comes', () => {
  const seen = new Seen();
  for (let number = 0; number < 2000; number++) {
    seen.agreed(`early ${number}`);
    seen.saw(`frame ${number}`);
  }
  const kept = seen.take();
  expect(kept).toHaveLength(512);
  expect(kept.at(-1)).toBe('frame 1999');
  const large = 'x'.repeat(60_000);
  for (let number = 0; number < 40; number++) seen.saw(`${number}${large}`);
  expect(seen.take().length).toBeLessThan(20);
});
