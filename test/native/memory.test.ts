import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { addonFile, failureOf, loadAddon, mappingCount } from './addon.ts';

const addon = loadAddon();

/** Shared memory that is closed with the test. */
function created(name: string, bytes: number): number {
  const fd = addon.memoryCreate(name, bytes);
  onTestFinished(() => closeSync(fd));
  return fd;
}

describe('copied bytes', () => {
  it('are those of the source, and nothing around them changes, also where both overlap', () => {
    const all = Uint8Array.from({ length: 256 }, (_, at) => at);
    const target = new Uint8Array(256);
    addon.copyBytes(target, 7, all, 100, 33);
    const expected = new Uint8Array(256);
    expected.set(all.subarray(100, 133), 7);
    expect(target).toEqual(expected);
    const moved = all.slice();
    addon.copyBytes(moved, 10, moved, 0, 200);
    expect(moved).toEqual(all.slice().copyWithin(10, 0, 200));
    addon.copyBytes(target, 256, all, 256, 0);
  });
});

describe('shared memory', () => {
  it('is zeroed, as large as asked for and cannot shrink', () => {
    const fd = created('gaia-zero', 10_000);
    const content = Buffer.alloc(10_000, 1);
    expect(readSync(fd, content, 0, 10_000, 0)).toBe(10_000);
    expect(content.every((byte) => byte === 0)).toBe(true);
    expect(failureOf(() => ftruncateSync(fd, 9_999)).code).toBe('EPERM');
  });

  it('is seen alike through two mappings and the descriptor, also once that is closed', () => {
    const fd = addon.memoryCreate('gaia-twice', 3 * 4096);
    const whole = addon.memoryMap(fd, 0, 3 * 4096, true);
    const last = addon.memoryMap(fd, 2 * 4096, 4096, false);
    writeSync(fd, Buffer.from([7]), 0, 1, 4096);
    closeSync(fd);
    new Uint8Array(whole)[2 * 4096 + 5] = 42;
    expect(new Uint8Array(whole)[4096]).toBe(7);
    expect(new Uint8Array(last)[5]).toBe(42);
    expect([whole.byteLength, last.byteLength]).toEqual([3 * 4096, 4096]);
    addon.memoryUnmap(whole);
    addon.memoryUnmap(last);
  });

  it('can be mapped up to 4 GiB at once and from beyond 4 GiB', () => {
    const fd = created('gaia-large', 2 ** 33 + 4096);
    const low = addon.memoryMap(fd, 0, 2 ** 32, true);
    const high = addon.memoryMap(fd, 2 ** 33, 4096, true);
    new Uint8Array(high)[0] = 9;
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, 2 ** 33);
    expect([low.byteLength, byte[0]]).toEqual([2 ** 32, 9]);
    addon.memoryUnmap(low);
    addon.memoryUnmap(high);
  });

  it('leaves the address space at once when it is unmapped, and its buffer is detached', () => {
    const fd = created('gaia-unmap', 4096);
    const buffer = addon.memoryMap(fd, 0, 4096, true);
    const view = new Uint8Array(buffer);
    expect(mappingCount('gaia-unmap')).toBe(1);
    addon.memoryUnmap(buffer);
    expect([mappingCount('gaia-unmap'), buffer.byteLength, view.length]).toEqual([0, 0, 0]);
  });

  it('is unmapped only once: a second time is refused and does no harm to a newer mapping', () => {
    const fd = created('gaia-again', 4096);
    const first = addon.memoryMap(fd, 0, 4096, true);
    addon.memoryUnmap(first);
    const second = addon.memoryMap(fd, 0, 4096, true);
    expect(() => addon.memoryUnmap(first)).toThrow(TypeError);
    new Uint8Array(second)[0] = 1;
    expect(mappingCount('gaia-again')).toBe(1);
    addon.memoryUnmap(second);
  });

  it('leaves the address space when its buffer is collected, and a newer mapping stays', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const fd = created('gaia-collected', 4096);
    const kept = addon.memoryMap(created('gaia-kept', 4096), 0, 4096, true);
    for (let i = 0; i < 20; i += 1) addon.memoryMap(fd, 0, 4096, true);
    for (let i = 0; i < 20; i += 1) addon.memoryUnmap(addon.memoryMap(fd, 0, 4096, true));
    while (mappingCount('gaia-collected') > 0) {
      collect();
      await setImmediate();
    }
    expect(mappingCount('gaia-kept')).toBe(1);
    addon.memoryUnmap(kept);
  });

  it('cannot be transferred away from the mapping that owns it', () => {
    const buffer = addon.memoryMap(created('gaia-move', 4096), 0, 4096, true);
    // Node 20 gives a copy instead, later versions throw.
    try {
      structuredClone(buffer, { transfer: [buffer] });
    } catch (error) {
      expect(error).toMatchObject({ name: 'DataCloneError' });
    }
    expect(buffer.byteLength).toBe(4096);
    addon.memoryUnmap(buffer);
    expect(mappingCount('gaia-move')).toBe(0);
  });

  it('is refused past the end of the file, where a touch would kill the process', () => {
    const fd = created('gaia-end', 8192);
    expect(() => addon.memoryMap(fd, 0, 8193, true)).toThrow(RangeError);
    expect(() => addon.memoryMap(fd, 4096, 4097, true)).toThrow(RangeError);
    expect(() => addon.memoryMap(fd, 12288, 1, true)).toThrow(RangeError);
    expect(mappingCount('gaia-end')).toBe(0);
  });

  it('tells which system call failed when the descriptor is not what it should be', () => {
    const fd = created('gaia-closed', 4096);
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r');
    onTestFinished(() => closeSync(readOnly));
    expect(failureOf(() => addon.memoryMap(readOnly, 0, 4096, true))).toMatchObject({
      code: 'EACCES',
      syscall: 'mmap',
      errno: -13,
    });
    expect(failureOf(() => addon.memoryMap(2 ** 30, 0, 4096, true))).toMatchObject({
      code: 'EBADF',
      syscall: 'fstat',
    });
    const [read, write] = addon.pipeCreate();
    expect(() => addon.memoryMap(read, 0, 4096, true)).toThrow(TypeError);
    closeSync(read);
    closeSync(write);
  });

  it('and pipes are refused, with nothing kept, when the process may open no more descriptors', () => {
    const code = `
      const addon = require(${JSON.stringify(addonFile())});
      const { readdirSync } = require('node:fs');
      const count = () => readdirSync('/proc/self/fd').length;
      const fds = [];
      const failures = [];
      const failing = (call) => { try { call(); } catch (error) { failures.push([error.code, error.syscall]); } };
      readdirSync('/proc/self/fd');
      const before = count();
      try { for (;;) fds.push(addon.memoryCreate('gaia-limit', 4096)); }
      catch (error) { failures.push([error.code, error.syscall]); }
      failing(() => addon.pipeCreate());
      failing(() => addon.pidfdOpen(process.pid));
      require('node:fs').closeSync(fds.pop());
      failing(() => addon.pipeCreate());
      fds.forEach((fd) => require('node:fs').closeSync(fd));
      console.log(JSON.stringify({ failures, left: count() - before }));`;
    const limited = spawnSync('sh', ['-c', 'ulimit -n 64; exec node -e "$0"', code], { encoding: 'utf8' });
    expect(limited.stderr).toBe('');
    expect(JSON.parse(limited.stdout)).toEqual({
      failures: [
        ['EMFILE', 'memfd_create'],
        ['EMFILE', 'pipe2'],
        ['EMFILE', 'pidfd_open'],
        ['EMFILE', 'pipe2'],
      ],
      left: 0,
    });
  });
});
