import { chmod, link, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { writeCpioArchive } from './cpio-archive.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-cpio-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

interface ReadEntry {
  readonly name: string;
  readonly inode: number;
  readonly mode: number;
  readonly owner: readonly [number, number];
  readonly time: number;
  readonly device: readonly [number, number];
  readonly contents: string;
}

/** An independent reader of the format, as the kernel documents it. */
function readArchive(archive: Buffer): ReadEntry[] {
  const entries: ReadEntry[] = [];
  for (let offset = 0; ;) {
    expect(archive.toString('latin1', offset, offset + 6)).toBe('070701');
    const field = (index: number): number =>
      parseInt(archive.toString('latin1', offset + 6 + index * 8, offset + 14 + index * 8), 16);
    const nameStart = offset + 110;
    const name = archive.toString('utf8', nameStart, nameStart + field(11) - 1);
    if (name === 'TRAILER!!!') return entries;
    const start = Math.ceil((nameStart + field(11)) / 4) * 4;
    entries.push({
      name,
      inode: field(0),
      mode: field(1),
      owner: [field(2), field(3)],
      time: field(5),
      device: [field(9), field(10)],
      contents: archive.toString('utf8', start, start + field(6)),
    });
    offset = Math.ceil((start + field(6)) / 4) * 4;
  }
}

async function makeTree(name: string): Promise<string> {
  const tree = join(folder, name);
  await mkdir(join(tree, 'etc'), { recursive: true });
  await writeFile(join(tree, 'etc/b'), 'second');
  await writeFile(join(tree, 'etc/a'), 'one');
  await writeFile(join(tree, 'etc-x'), '');
  await writeFile(join(tree, 'Zebra'), 'ä');
  await chmod(join(tree, 'etc/a'), 0o4755);
  await chmod(join(tree, 'etc'), 0o700);
  await symlink('a', join(tree, 'etc/link'));
  await link(join(tree, 'etc/a'), join(tree, 'etc/hard'));
  return tree;
}

async function archiveOf(tree: string, options = {}): Promise<Buffer> {
  const target = join(folder, 'archive');
  const bytes = await writeCpioArchive(tree, target, options);
  const archive = await readFile(target);
  expect(archive).toHaveLength(bytes);
  return archive;
}

describe('cpio archives', () => {
  it('hold names in code unit order, with modes, links and contents', async () => {
    const entries = readArchive(await archiveOf(await makeTree('tree')));
    expect(entries.map(({ name, mode, contents }) => [name, mode, contents])).toEqual([
      ['Zebra', 0o100644, 'ä'],
      ['etc', 0o040700, ''],
      ['etc-x', 0o100644, ''],
      ['etc/a', 0o104755, 'one'],
      ['etc/b', 0o100644, 'second'],
      ['etc/hard', 0o104755, 'one'],
      ['etc/link', 0o120777, 'a'],
    ]);
    expect(entries.map(({ inode }) => inode)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  it('are the same bytes for the same tree, whenever and wherever it was made', async () => {
    const first = await archiveOf(await makeTree('one'));
    const tree = await makeTree('two');
    await utimes(join(tree, 'etc/a'), 1, 1);
    expect(first.equals(await archiveOf(tree))).toBe(true);
  });

  it('belong to root and to no time, save for owners that are named', async () => {
    const tree = await makeTree('tree');
    const owners = new Map([['etc', { uid: 7, gid: 8 }]]);
    const entries = readArchive(await archiveOf(tree, { owners }));
    const owned = entries.filter(({ owner }) => owner[0] === 7 && owner[1] === 8).map(({ name }) => name);
    expect(owned).toEqual(['etc', 'etc/a', 'etc/b', 'etc/hard', 'etc/link']);
    expect(entries.every(({ time }) => time === 0)).toBe(true);
  });

  it('hold device nodes that no folder could have without root', async () => {
    const tree = join(folder, 'tree');
    await mkdir(join(tree, 'dev'), { recursive: true });
    const devices = [{ path: 'dev/console', mode: 0o600, major: 5, minor: 1 }];
    const entries = readArchive(await archiveOf(tree, { devices }));
    expect(entries[1]).toMatchObject({ name: 'dev/console', mode: 0o020600, device: [5, 1] });
  });
});
