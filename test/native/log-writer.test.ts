import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import type { LogWriter } from '../../native/binding.ts';
import { faultyDisk, type DiskFaults } from '../framework/faulty-disk.ts';
import { addonFile, loadAddon, openFds } from './addon.ts';

const addon = loadAddon();
const folder = mkdtempSync(join(tmpdir(), 'gaia-log-writer-'));
afterAll(() => rmSync(folder, { recursive: true }));

const open: LogWriter[] = [];
afterEach(() => open.splice(0).forEach(({ writer }) => addon.logWriterClose(writer)));

function openWriter(ringBytes: number): { readonly log: LogWriter; readonly words: Int32Array } {
  const log = addon.logWriterOpen(ringBytes);
  open.push(log);
  return { log, words: new Int32Array(log.words) };
}

/** Waits until the word is this one. */
function untilWord(log: LogWriter, words: Int32Array, word: number, value: number): void {
  while (Atomics.load(words, word) !== value) {
    expect(addon.waitReadable(Int32Array.of(log.eventFd), new Uint8Array(1), 10_000_000)).toBe(1);
    addon.drain(log.eventFd);
  }
}

function childOutput(file: string, count: number, faults: DiskFaults): string[] {
  const program = join(import.meta.dirname, 'log-writer-child.mjs');
  const ended = spawnSync(process.execPath, [program, addonFile(), file, String(count)], {
    encoding: 'utf8',
    env: faultyDisk(folder, folder, faults),
  });
  expect(ended).toMatchObject({ status: 0, stderr: '' });
  return ended.stdout.trim().split('\n');
}

describe('a log writer', () => {
  it('has every byte where it was sent when it calls it durable, also around the end of its ring', () => {
    const { log, words } = openWriter(4096);
    const file = join(folder, 'bytes');
    const fd = openSync(file, 'w+');
    const expected = Buffer.alloc(0x8000);
    let offset = 0;
    let writes = 0;
    for (let i = 0; i < 100; i++) {
      const length = 8 + ((i * 104) % 600);
      const bytes = new Uint8Array(length + 3).fill(i + 1);
      while (!addon.logWriterWrite(log.writer, fd, offset, bytes, 3, length, true))
        untilWord(log, words, 0, writes);
      expected.fill(i + 1, offset, offset + length);
      offset += length;
      writes++;
    }
    untilWord(log, words, 0, writes);
    expect(readFileSync(file).equals(expected.subarray(0, offset))).toBe(true);
    closeSync(fd);
  });

  it('copies the bytes: what becomes of them afterwards is not written', () => {
    const { log, words } = openWriter(4096);
    const file = join(folder, 'copied');
    const fd = openSync(file, 'w+');
    const bytes = new Uint8Array(1000).fill(7);
    addon.logWriterWrite(log.writer, fd, 0, bytes, 0, 1000, true);
    bytes.fill(9);
    untilWord(log, words, 0, 1);
    expect(readFileSync(file).every((byte) => byte === 7)).toBe(true);
    closeSync(fd);
  });

  it('calls what needs no sync durable with the next write that does', () => {
    const { log, words } = openWriter(4096);
    const file = join(folder, 'lazy');
    const fd = openSync(file, 'w+');
    addon.logWriterWrite(log.writer, fd, 0, new Uint8Array(8).fill(1), 0, 8, false);
    addon.logWriterWrite(log.writer, fd, 8, new Uint8Array(8).fill(2), 0, 8, true);
    untilWord(log, words, 0, 2);
    expect([...readFileSync(file)]).toEqual([...Array<number>(8).fill(1), ...Array<number>(8).fill(2)]);
    closeSync(fd);
  });

  it('finishes what waits before it closes', () => {
    const { log } = openWriter(1 << 20);
    const file = join(folder, 'closed');
    const fd = openSync(file, 'w+');
    for (let i = 0; i < 1000; i++)
      expect(addon.logWriterWrite(log.writer, fd, i * 64, new Uint8Array(64).fill(3), 0, 64, true)).toBe(
        true,
      );
    addon.logWriterClose(open.pop()?.writer ?? 0);
    expect(readFileSync(file).length).toBe(64_000);
    closeSync(fd);
  });

  it('takes many writes with one sync while the disk is slow', () => {
    const lines = childOutput(join(folder, 'grouped'), 200, { fdatasyncUs: 20_000 });
    const { groups } = JSON.parse(lines.at(-1) ?? '') as { groups: number };
    expect(groups).toBeGreaterThan(1);
    // The ring holds 16 of them: each sync but the first takes about that many.
    expect(groups).toBeLessThan(50);
  });

  it('goes on where a short write ended', () => {
    const file = join(folder, 'short');
    childOutput(file, 50, { pwriteShort: 100 });
    const blocks = readFileSync(file);
    expect(blocks.length).toBe(50 * 512);
    expect(blocks.every((byte, at) => byte === Math.floor(at / 512) % 251)).toBe(true);
  });

  it.each([
    ['fdatasync', { fdatasyncFails: 3 }, 2, constants.errno.EIO],
    ['pwrite', { pwriteFails: 3 }, 1, constants.errno.ENOSPC],
  ] as const)('says that %s failed, and never calls anything durable again', (_, faults, call, errno) => {
    const lines = childOutput(join(folder, 'failed'), 5000, faults);
    const last = JSON.parse(lines.at(-1) ?? '') as Record<string, number>;
    expect(last).toMatchObject({ errno, call });
    expect(last['after']).toBe(last['before']);
    // Two groups went well before.
    expect(lines.length).toBeGreaterThan(1);
  });

  it('prepares a file with its place on the disk', () => {
    const { log, words } = openWriter(4096);
    const file = join(folder, 'prepared');
    expect(addon.logWriterPrepare(log.writer, file, 1 << 20, Uint8Array.of(1, 2, 3))).toBe(true);
    untilWord(log, words, 3, 1);
    expect(Atomics.load(words, 4)).toBe(0);
    const status = statSync(file);
    expect(status.size).toBe(1 << 20);
    expect(status.blocks * 512).toBeGreaterThanOrEqual(1 << 20);
    expect(status.mode & 0o777).toBe(0o600);
    const bytes = readFileSync(file);
    expect([...bytes.subarray(0, 3)]).toEqual([1, 2, 3]);
    expect(bytes.subarray(3).every((byte) => byte === 0)).toBe(true);
    const fd = Atomics.load(words, 5);
    expect(openFds()).toContain(`${fd} -> ${file}`);
    closeSync(fd);
  });

  it('leaves alone a file that is there, and nothing of one that cannot be made', () => {
    const { log, words } = openWriter(4096);
    const file = join(folder, 'there');
    writeFileSync(file, 'mine');
    addon.logWriterPrepare(log.writer, file, 4096, new Uint8Array(0));
    untilWord(log, words, 3, 1);
    expect(Atomics.load(words, 4)).toBe(constants.errno.EEXIST);
    expect(Atomics.load(words, 5)).toBe(-1);
    expect(readFileSync(file, 'utf8')).toBe('mine');
    // More than any disk has.
    addon.logWriterPrepare(log.writer, join(folder, 'huge'), 2 ** 52, new Uint8Array(0));
    untilWord(log, words, 3, 2);
    expect([constants.errno.EFBIG, constants.errno.ENOSPC]).toContain(Atomics.load(words, 4));
    expect(readdirSync(folder)).not.toContain('huge');
  });
});
