import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { loadAddon, plainEnvironment, repository } from './addon.ts';

const addon = loadAddon();

/** By the definition: one bit after the other. */
function bitwise(bytes: Uint8Array): number {
  let remainder = 0xffff_ffff;
  for (const byte of bytes) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit += 1)
      remainder = (remainder >>> 1) ^ ((remainder & 1) === 1 ? 0x82f6_3b78 : 0);
  }
  return ~remainder >>> 0;
}

describe('CRC-32C', () => {
  it('has the check value of the standard', () => {
    expect(addon.crc32c(Buffer.from('123456789'), 0)).toBe(0xe306_9283);
    expect(addon.crc32c(new Uint8Array(0), 0)).toBe(0);
  });

  it.each([
    ['32 bytes of zeros', new Uint8Array(32), 0x8a91_36aa],
    ['32 bytes of ones', new Uint8Array(32).fill(0xff), 0x62a8_ab43],
    ['32 rising bytes', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd_794e],
    ['32 falling bytes', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113f_db5c],
  ])('has the value that RFC 3720 gives for %s', (_, bytes, value) => {
    expect(addon.crc32c(bytes, 0)).toBe(value);
  });

  it('agrees with the definition for any bytes at any alignment, whole or continued', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(7), (bytes, cut, shift) => {
        const window = new Uint8Array(bytes.length + shift).subarray(shift);
        window.set(bytes);
        const whole = addon.crc32c(window, 0);
        expect(whole).toBe(bitwise(bytes));
        expect(addon.crc32c(window.subarray(cut), addon.crc32c(window.subarray(0, cut), 0))).toBe(whole);
      }),
    );
  });

  it('is the same for a part of an array, as signed 32 bits, continued or not', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(200), (bytes, one, other) => {
        const at = Math.min(one, bytes.length);
        const length = Math.min(other, bytes.length - at);
        const part = bytes.slice(at, at + length);
        expect(addon.crc32cAt(bytes, at, length, 0)).toBe(addon.crc32c(part, 0) | 0);
        expect(addon.crc32cAt(bytes, at, length, -7)).toBe(addon.crc32c(part, -7 >>> 0) | 0);
      }),
    );
  });

  it('gives the same with the CPU instruction and with the table', () => {
    const folder = mkdtempSync(join(tmpdir(), 'gaia-crc32c-'));
    onTestFinished(() => {
      rmSync(folder, { recursive: true });
    });
    const sources = ['native/src/crc32c.cc', 'test/native/crc32c-roads.cc'].map((file) =>
      join(repository, file),
    );
    const program = join(folder, 'crc32c-roads');
    const flags = ['-std=c++17', '-O1', '-Wall', '-Wextra', '-Werror', '-I', join(repository, 'native/src')];
    execFileSync('g++', [...flags, '-o', program, ...sources], { env: plainEnvironment });
    expect(execFileSync(program, { encoding: 'utf8', env: plainEnvironment })).toMatch(
      /^(equal|no instruction)\n$/,
    );
  });
});
