import { closeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { NativeBinding } from '../../native/binding.ts';
import { loadAddon, openFds } from './addon.ts';

const addon = loadAddon();

const fd = addon.memoryCreate('gaia-refusals', 8192);
const memory = addon.memoryMap(fd, 0, 8192, true);
afterAll(() => {
  addon.memoryUnmap(memory);
  closeSync(fd);
});

/** A view of an ArrayBuffer that is gone. */
function detached<T>(View: new (buffer: ArrayBuffer) => T): T {
  const buffer = new ArrayBuffer(64);
  const view = new View(buffer);
  structuredClone(buffer, { transfer: [buffer] });
  return view;
}

function detachedBuffer(): ArrayBuffer {
  const buffer = new ArrayBuffer(8192);
  structuredClone(buffer, { transfer: [buffer] });
  return buffer;
}

const bytes = new Uint8Array(64);
const log = addon.logWriterOpen(4096);
afterAll(() => addon.logWriterClose(log.writer));

function closedWriter(): number {
  const { writer } = addon.logWriterOpen(4096);
  addon.logWriterClose(writer);
  return writer;
}

const fds = Int32Array.of(fd);
const pages = Uint32Array.of(0, 1);
const socketPath = join(tmpdir(), 'gaia-refused.sock');

type Refusal = readonly [argument: string, what: string, error: typeof TypeError, args: readonly unknown[]];

/** For each function: the argument that is named, what is wrong with it, and the call. */
const refusals: Readonly<Record<keyof NativeBinding, readonly Refusal[]>> = {
  memoryCreate: [
    ['name', 'missing', TypeError, []],
    ['name', 'a number', TypeError, [1, 4096]],
    ['name', 'empty', RangeError, ['', 4096]],
    ['name', 'too long', RangeError, ['x'.repeat(250), 4096]],
    ['name', 'with a NUL', RangeError, ['a\0b', 4096]],
    ['bytes', 'missing', TypeError, ['x']],
    ['bytes', 'a string', TypeError, ['x', '4096']],
    ['bytes', 'a bigint', TypeError, ['x', 4096n]],
    ['bytes', 'zero', RangeError, ['x', 0]],
    ['bytes', 'negative', RangeError, ['x', -4096]],
    ['bytes', 'a fraction', RangeError, ['x', 4096.5]],
    ['bytes', 'not a number', RangeError, ['x', NaN]],
    ['bytes', 'infinite', RangeError, ['x', Infinity]],
    ['bytes', 'not exact', RangeError, ['x', 2 ** 53]],
  ],
  memoryMap: [
    ['fd', 'null', TypeError, [null, 0, 4096, true]],
    ['fd', 'negative', RangeError, [-1, 0, 4096, true]],
    ['fd', 'over 31 bits', RangeError, [2 ** 31, 0, 4096, true]],
    ['fd', 'a fraction', RangeError, [0.5, 0, 4096, true]],
    ['offsetBytes', 'missing', TypeError, [fd]],
    ['offsetBytes', 'negative', RangeError, [fd, -4096, 4096, true]],
    ['offsetBytes', 'unaligned', RangeError, [fd, 100, 4096, true]],
    ['bytes', 'an object', TypeError, [fd, 0, {}, true]],
    ['bytes', 'zero', RangeError, [fd, 0, 0, true]],
    ['bytes', 'over 4 GiB', RangeError, [fd, 0, 2 ** 32 + 1, true]],
    ['bytes', 'past the end', RangeError, [fd, 4096, 4097, true]],
    ['bytes', 'far past the end', RangeError, [fd, 2 ** 52, 4096, true]],
    ['writable', 'missing', TypeError, [fd, 0, 4096]],
    ['writable', 'a number', TypeError, [fd, 0, 4096, 1]],
  ],
  memoryUnmap: [
    ['buffer', 'missing', TypeError, []],
    ['buffer', 'a view', TypeError, [new Uint8Array(memory)]],
    ['buffer', 'an ordinary buffer', TypeError, [new ArrayBuffer(8192)]],
    ['buffer', 'empty', TypeError, [new ArrayBuffer(0)]],
    ['buffer', 'shared with workers', TypeError, [new SharedArrayBuffer(8)]],
    ['buffer', 'detached', TypeError, [detachedBuffer()]],
  ],
  crc32cAt: [
    ['bytes', 'a buffer', TypeError, [memory, 0, 1, 0]],
    ['bytes', 'detached', TypeError, [detached(Uint8Array), 0, 0, 0]],
    ['at', 'missing', TypeError, [bytes, undefined, 1]],
    ['at', 'negative', RangeError, [bytes, -1, 1, 0]],
    ['length', 'missing', TypeError, [bytes, 0]],
    ['length', 'past the end', RangeError, [bytes, 1, 64, 0]],
    ['length', 'from behind the end', RangeError, [bytes, 65, 0, 0]],
    ['length', 'not exact', RangeError, [bytes, 0, 2 ** 53, 0]],
    ['seed', 'missing', TypeError, [bytes, 0, 1]],
    ['seed', 'over 31 bits', RangeError, [bytes, 0, 1, 2 ** 31]],
  ],
  copyBytes: [
    ['target', 'a buffer', TypeError, [memory, 0, bytes, 0, 1]],
    ['target', 'detached', TypeError, [detached(Uint8Array), 0, bytes, 0, 0]],
    ['targetAt', 'negative', RangeError, [bytes, -1, bytes, 0, 1]],
    ['source', 'of another type', TypeError, [bytes, 0, pages, 0, 1]],
    ['sourceAt', 'missing', TypeError, [bytes, 0, bytes, undefined, 1]],
    ['length', 'missing', TypeError, [bytes, 0, bytes, 0]],
    ['length', 'past the end of the source', RangeError, [new Uint8Array(128), 0, bytes, 1, 64]],
    ['length', 'past the end of the target', RangeError, [bytes, 1, new Uint8Array(128), 0, 64]],
  ],
  crc32c: [
    ['bytes', 'a buffer', TypeError, [memory, 0]],
    ['bytes', 'of another type', TypeError, [pages, 0]],
    ['bytes', 'clamped', TypeError, [new Uint8ClampedArray(4), 0]],
    ['bytes', 'a data view', TypeError, [new DataView(memory), 0]],
    ['bytes', 'detached', TypeError, [detached(Uint8Array), 0]],
    ['seed', 'missing', TypeError, [bytes]],
    ['seed', 'negative', RangeError, [bytes, -1]],
    ['seed', 'over 32 bits', RangeError, [bytes, 2 ** 32]],
  ],
  pipeCreate: [],
  waitReadable: [
    ['fds', 'an array', TypeError, [[fd], bytes, 0]],
    ['fds', 'of another type', TypeError, [Uint32Array.of(fd), bytes, 0]],
    ['fds', 'detached', TypeError, [detached(Int32Array), bytes, 0]],
    ['fds', 'too many', RangeError, [new Int32Array(257), new Uint8Array(257), 0]],
    ['fds', 'negative', RangeError, [Int32Array.of(fd, -1), bytes, 0]],
    ['fds', 'empty without a limit', RangeError, [new Int32Array(0), bytes, -1]],
    ['ready', 'of another type', TypeError, [fds, fds, 0]],
    ['ready', 'detached', TypeError, [fds, detached(Uint8Array), 0]],
    ['ready', 'too small', RangeError, [new Int32Array(2), new Uint8Array(1), 0]],
    ['timeoutUs', 'missing', TypeError, [fds, bytes]],
    ['timeoutUs', 'not a number', RangeError, [fds, bytes, NaN]],
    ['timeoutUs', 'infinite', RangeError, [fds, bytes, Infinity]],
  ],
  ring: [
    ['fd', 'a string', TypeError, ['1', 'pipe']],
    ['fd', 'negative', RangeError, [-1, 'pipe']],
    ['kind', 'missing', TypeError, [fd]],
    ['kind', 'unknown', RangeError, [fd, 'bell']],
  ],
  drain: [
    ['fd', 'missing', TypeError, []],
    ['fd', 'negative', RangeError, [-1]],
  ],
  pidfdOpen: [
    ['pid', 'missing', TypeError, []],
    ['pid', 'zero', RangeError, [0]],
    ['pid', 'negative', RangeError, [-5]],
    ['pid', 'over 31 bits', RangeError, [2 ** 31]],
  ],
  logWriterOpen: [
    ['ringBytes', 'missing', TypeError, []],
    ['ringBytes', 'less than a page', RangeError, [4095]],
    ['ringBytes', 'over a GiB', RangeError, [2 ** 30 + 1]],
  ],
  logWriterWrite: [
    ['writer', 'missing', TypeError, []],
    ['writer', 'never opened', RangeError, [999, fd, 0, bytes, 0, 8, true]],
    ['fd', 'negative', RangeError, [log.writer, -1, 0, bytes, 0, 8, true]],
    ['offsetBytes', 'negative', RangeError, [log.writer, fd, -1, bytes, 0, 8, true]],
    ['bytes', 'an ArrayBuffer', TypeError, [log.writer, fd, 0, memory, 0, 8, true]],
    ['bytes', 'detached', TypeError, [log.writer, fd, 0, detached(Uint8Array), 0, 8, true]],
    ['at', 'negative', RangeError, [log.writer, fd, 0, bytes, -1, 8, true]],
    ['length', 'zero', RangeError, [log.writer, fd, 0, bytes, 0, 0, true]],
    ['length', 'past the end', RangeError, [log.writer, fd, 0, bytes, 60, 8, true]],
    ['length', 'beyond the end', RangeError, [log.writer, fd, 0, bytes, 65, 1, true]],
    ['length', 'over the ring', RangeError, [log.writer, fd, 0, new Uint8Array(4097), 0, 4097, true]],
    ['sync', 'a number', TypeError, [log.writer, fd, 0, bytes, 0, 8, 1]],
  ],
  logWriterPrepare: [
    ['writer', 'never opened', RangeError, [999, '/', 1, bytes]],
    ['path', 'empty', RangeError, [log.writer, '', 1]],
    ['path', 'with a NUL', RangeError, [log.writer, 'a\0b', 1]],
    ['bytes', 'zero', RangeError, [log.writer, socketPath, 0]],
    ['head', 'missing', TypeError, [log.writer, socketPath, 1]],
    ['head', 'longer than the file', RangeError, [log.writer, socketPath, 63, bytes]],
  ],
  logWriterClose: [
    ['writer', 'missing', TypeError, []],
    ['writer', 'closed before', RangeError, [closedWriter()]],
  ],
  fileForgetCached: [['fd', 'negative', RangeError, [-1]]],
  portListen: [
    ['path', 'missing', TypeError, []],
    ['path', 'empty', RangeError, ['']],
    ['path', 'over 107 bytes', RangeError, [`/${'x'.repeat(107)}`]],
    ['path', 'with a NUL', RangeError, [`${socketPath}\0x`]],
    ['path', 'abstract', RangeError, ['\0abstract']],
  ],
  portAccept: [
    ['listenFd', 'missing', TypeError, []],
    ['listenFd', 'negative', RangeError, [-1]],
  ],
  portReceive: [
    ['fd', 'negative', RangeError, [-1, bytes]],
    ['into', 'missing', TypeError, [fd]],
    ['into', 'empty', RangeError, [fd, new Uint8Array(0)]],
    ['into', 'detached', TypeError, [fd, detached(Uint8Array)]],
  ],
  portSend: [
    ['fd', 'negative', RangeError, [-1, bytes]],
    ['message', 'a string', TypeError, [fd, 'hello']],
    ['message', 'empty', RangeError, [fd, new Uint8Array(0)]],
    ['message', 'detached', TypeError, [fd, detached(Uint8Array)]],
  ],
  lifeMemory: [],
  tscKhz: [], // Takes nothing.
  tapOpen: [
    ['name', 'missing', TypeError, []],
    ['name', 'empty', RangeError, ['', { vnetHeader: true }]],
    ['name', 'over 15 bytes', RangeError, ['x'.repeat(16), { vnetHeader: true }]],
    ['name', 'a pattern', RangeError, ['gaia%d', { vnetHeader: true }]],
    ['name', 'a path', RangeError, ['a/b', { vnetHeader: true }]],
    ['name', 'with a blank', RangeError, ['a b', { vnetHeader: true }]],
    ['name', 'the parent folder', RangeError, ['..', { vnetHeader: true }]],
    ['options', 'missing', TypeError, ['gaia0']],
    ['options', 'null', TypeError, ['gaia0', null]],
    ['options.vnetHeader', 'missing', TypeError, ['gaia0', {}]],
    ['options.vnetHeader', 'a number', TypeError, ['gaia0', { vnetHeader: 1 }]],
  ],
  tapCarrier: [
    ['fd', 'negative', RangeError, [-1, true]],
    ['up', 'missing', TypeError, [fd]],
    ['up', 'a string', TypeError, [fd, 'up']],
  ],
  blake3Pages: [
    ['memory', 'a view', TypeError, [bytes, pages, 1, bytes]],
    ['memory', 'shared with workers', TypeError, [new SharedArrayBuffer(8192), pages, 1, bytes]],
    ['memory', 'detached', TypeError, [detachedBuffer(), pages, 1, bytes]],
    ['pages', 'an array', TypeError, [memory, [0, 1], 1, bytes]],
    ['pages', 'of another type', TypeError, [memory, Int32Array.of(0), 1, bytes]],
    ['pages', 'detached', TypeError, [memory, detached(Uint32Array), 1, bytes]],
    ['pages', 'past the end', RangeError, [memory, Uint32Array.of(0, 2), 2, bytes]],
    ['pages', 'past all', RangeError, [memory, Uint32Array.of(0xffff_ffff), 1, bytes]],
    ['count', 'missing', TypeError, [memory, pages]],
    ['count', 'negative', RangeError, [memory, pages, -1, bytes]],
    ['count', 'over the list', RangeError, [memory, pages, 3, new Uint8Array(96)]],
    ['count', 'far over the list', RangeError, [memory, pages, Number.MAX_SAFE_INTEGER, bytes]],
    ['out', 'missing', TypeError, [memory, pages, 1]],
    ['out', 'too small', RangeError, [memory, pages, 2, new Uint8Array(63)]],
    ['out', 'detached', TypeError, [memory, pages, 1, detached(Uint8Array)]],
  ],
  blake3Parents: [
    ['input', 'a buffer', TypeError, [memory, 32, 1, bytes]],
    ['input', 'too small', RangeError, [bytes, 33, 2, bytes]],
    ['input', 'detached', TypeError, [detached(Uint8Array), 32, 1, bytes]],
    ['pieceBytes', 'zero', RangeError, [bytes, 0, 1, bytes]],
    ['pieceBytes', 'over one chunk', RangeError, [new Uint8Array(1025), 1025, 1, bytes]],
    ['count', 'negative', RangeError, [bytes, 32, -1, bytes]],
    ['input', 'overflown', RangeError, [bytes, 1024, Number.MAX_SAFE_INTEGER, bytes]],
    ['out', 'too small', RangeError, [bytes, 32, 2, new Uint8Array(63)]],
    ['out', 'of another type', TypeError, [bytes, 32, 1, pages]],
  ],
  blake3ParentsAt: [
    ['input', 'a buffer', TypeError, [memory, 32, pages, 1, bytes]],
    ['which', 'past the input', RangeError, [new Uint8Array(63), 32, pages, 2, bytes]],
    ['which', 'past the hashes', RangeError, [bytes, 32, pages, 2, new Uint8Array(63)]],
    ['pieceBytes', 'zero', RangeError, [bytes, 0, pages, 1, bytes]],
    ['pieceBytes', 'over one chunk', RangeError, [new Uint8Array(4096), 1025, pages, 1, bytes]],
    ['which', 'an array', TypeError, [bytes, 32, [0, 1], 1, bytes]],
    ['which', 'detached', TypeError, [bytes, 32, detached(Uint32Array), 1, bytes]],
    ['which', 'past all', RangeError, [bytes, 32, Uint32Array.of(0xffff_ffff), 1, bytes]],
    ['count', 'negative', RangeError, [bytes, 32, pages, -1, bytes]],
    ['count', 'over the list', RangeError, [bytes, 32, pages, 3, new Uint8Array(96)]],
    ['out', 'of another type', TypeError, [bytes, 32, pages, 1, pages]],
  ],
  blake3: [
    ['bytes', 'missing', TypeError, []],
    ['bytes', 'a string', TypeError, ['hello']],
    ['bytes', 'detached', TypeError, [detached(Uint8Array)]],
  ],
  blake3Level: [
    ['force', 'null', TypeError, [null]],
    ['force', 'a number', TypeError, [512]],
    ['force', 'empty', RangeError, ['']],
    ['force', 'unknown', RangeError, ['neon']],
  ],
  blake3Threads: [
    ['count', 'null', TypeError, [null]],
    ['count', 'a string', TypeError, ['2']],
    ['count', 'zero', RangeError, [0]],
    ['count', 'over 64', RangeError, [65]],
    ['count', 'a fraction', RangeError, [1.5]],
  ],
};

/** The addon as JavaScript sees it, which knows no types. */
const loose = addon as unknown as Readonly<Record<string, (...args: readonly unknown[]) => unknown>>;

describe.each(Object.entries(refusals))('%s', (name, cases) => {
  it('is there', () => {
    expect(typeof loose[name]).toBe('function');
  });

  it.each(cases)('refuses a %s that is %s, by name and without a trace', (argument, _, error, args) => {
    const before = openFds();
    let thrown: unknown;
    try {
      loose[name]?.(...args);
    } catch (reason) {
      thrown = reason;
    }
    expect(thrown).toBeInstanceOf(error);
    expect((thrown as Error).message).toMatch(new RegExp(`^Argument ${argument} of ${name} [a-z]`));
    expect(openFds()).toEqual(before);
  });
});

it('the addon has exactly the functions of its interface', () => {
  expect(Object.keys(addon).sort()).toEqual(Object.keys(refusals).sort());
});
