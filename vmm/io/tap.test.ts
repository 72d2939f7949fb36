import { describe, expect, it } from 'vitest';
import { announcement, parseMac } from './tap.ts';

describe('the announcement', () => {
  it('is a RARP broadcast from the guest, whose address switches learn from its source', () => {
    const mac = parseMac('52:54:00:12:34:56');
    const frame = Buffer.from(announcement(mac));
    expect(frame).toHaveLength(60);
    expect(frame.subarray(0, 6).toString('hex')).toBe('ffffffffffff');
    expect(frame.subarray(6, 12).toString('hex')).toBe('525400123456');
    expect(frame.subarray(12, 22).toString('hex')).toBe('80350001080006040003');
  });

  it.each(['', '52:54:00:12:34', '52:54:00:12:34:zz', '52:54:00:12:34:56:78'])(
    'refuses the address %j',
    (text) => {
      expect(() => parseMac(text)).toThrow('is not a MAC address');
    },
  );
});
