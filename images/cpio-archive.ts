/**
 * Writes a folder as a cpio archive in the "newc" format, which the Linux kernel unpacks as its initramfs.
 * Guarantee: the bytes depend only on names, kinds, modes and contents. Entries are sorted by name, all
 * times are 0, owner and group are root unless named otherwise, inode numbers count from 1, and hard links
 * are written as separate files.
 */

import { createReadStream } from 'node:fs';
import { lstat, open, readdir, readlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

/** Owner of one path; everything that has none belongs to root. */
interface Ownership {
  readonly uid: number;
  readonly gid: number;
}

/** Device nodes cannot be made without root, so they exist only in the archive. */
interface CharacterDevice {
  readonly path: string;
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
}

export interface CpioOptions {
  /** Keys are paths relative to the folder; a whole tree takes the owner of its nearest named parent. */
  readonly owners?: ReadonlyMap<string, Ownership>;
  readonly devices?: readonly CharacterDevice[];
}

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly owner: Ownership;
  readonly device: { readonly major: number; readonly minor: number };
  readonly bytes: number;
  /** A file to stream, or the data itself (symbolic links). */
  readonly file?: string;
  readonly data?: Buffer;
}

const root: Ownership = { uid: 0, gid: 0 };
const noDevice = { major: 0, minor: 0 };
const characterDeviceType = 0o020000;
const alignmentBytes = 4;
/** Linux reads the archive in pieces of any size; the customary padding keeps other tools content. */
const blockBytes = 512;

/** Writes the archive of `folder` to `target` and resolves with its length in bytes. */
export async function writeCpioArchive(
  folder: string,
  target: string,
  options: CpioOptions = {},
): Promise<number> {
  const entries = await collectEntries(folder, options);
  const output = await open(target, 'w', 0o644);
  try {
    let offset = 0;
    let inode = 1;
    for (const entry of entries) {
      offset = await writeEntry(output, entry, inode++, offset);
    }
    const trailer: Entry = { name: 'TRAILER!!!', mode: 0, owner: root, device: noDevice, bytes: 0 };
    offset = await writeEntry(output, trailer, 0, offset);
    return await pad(output, offset, blockBytes);
  } finally {
    await output.close();
  }
}

async function collectEntries(folder: string, options: CpioOptions): Promise<Entry[]> {
  const owners = options.owners ?? new Map<string, Ownership>();
  const entries: Entry[] = (options.devices ?? []).map((device) => ({
    name: device.path,
    mode: characterDeviceType | device.mode,
    owner: root,
    device: { major: device.major, minor: device.minor },
    bytes: 0,
  }));
  const visit = async (relative: string, inherited: Ownership): Promise<void> => {
    for (const name of await readdir(join(folder, relative))) {
      const path = relative === '' ? name : `${relative}/${name}`;
      const file = join(folder, path);
      const stat = await lstat(file);
      const owner = owners.get(path) ?? inherited;
      const common = { name: path, mode: stat.mode, owner, device: noDevice };
      if (stat.isDirectory()) {
        entries.push({ ...common, bytes: 0 });
        await visit(path, owner);
      } else if (stat.isSymbolicLink()) {
        // The mode of a symbolic link differs between systems and means nothing.
        const data = Buffer.from(await readlink(file));
        entries.push({ ...common, mode: 0o120777, bytes: data.length, data });
      } else if (stat.isFile()) {
        entries.push({ ...common, bytes: stat.size, file });
      }
    }
  };
  await visit('', root);
  // Compared by code unit, never by locale; a folder always sorts before what it holds.
  return entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

async function writeEntry(output: FileHandle, entry: Entry, inode: number, offset: number): Promise<number> {
  const name = Buffer.from(`${entry.name}\0`);
  const fields = [
    inode,
    entry.mode,
    entry.owner.uid,
    entry.owner.gid,
    1, // links
    0, // time of change
    entry.bytes,
    0, // device of the file system, major and minor
    0,
    entry.device.major,
    entry.device.minor,
    name.length,
    0, // checksum, unused by newc
  ];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  let end = offset + (await writeAll(output, Buffer.concat([header, name])));
  end = await pad(output, end, alignmentBytes);
  if (entry.data !== undefined) end += await writeAll(output, entry.data);
  if (entry.file !== undefined) end += await copyFile(output, entry.file, entry.bytes);
  return pad(output, end, alignmentBytes);
}

async function copyFile(output: FileHandle, file: string, bytes: number): Promise<number> {
  let copied = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    copied += await writeAll(output, chunk as Buffer);
  }
  if (copied !== bytes)
    throw new Error(`${file} changed from ${bytes} to ${copied} bytes while it was packed`);
  return copied;
}

async function pad(output: FileHandle, offset: number, alignment: number): Promise<number> {
  const missing = (alignment - (offset % alignment)) % alignment;
  return offset + (await writeAll(output, Buffer.alloc(missing)));
}

async function writeAll(output: FileHandle, data: Buffer): Promise<number> {
  let written = 0;
  while (written < data.length) {
    const { bytesWritten } = await output.write(data, written, data.length - written, null);
    written += bytesWritten;
  }
  return written;
}
