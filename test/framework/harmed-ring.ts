/** What a QEMU gone mad does to the memory that it shares with its agent. */
import { closeSync, openSync, readdirSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { areaOffset, ringIndex, ringOffset } from '../../vmm/io/qemu/layout.ts';

/** So often at once that whoever looks at the ring sees it, though QEMU itself puts it right with the next frame. */
const writes = 2000;

/** The ring through which frames come from the tap. */
export class HarmedRing {
  readonly #area: number;
  readonly #headAt: number;

  constructor(qemuPid: number) {
    const folder = `/proc/${qemuPid}/fd`;
    const fd = readdirSync(folder).find((name) => linkOf(join(folder, name)).startsWith('/memfd:gaia-port'));
    if (fd === undefined) throw new Error(`Process ${qemuPid} has no port area`);
    this.#area = openSync(join(folder, fd), 'r+');
    const ringAt = Buffer.alloc(8);
    readSync(this.#area, ringAt, 0, 8, areaOffset.ringOffset + 8 * ringIndex.ingress);
    this.#headAt = Number(ringAt.readBigUInt64LE()) + ringOffset.head;
  }

  /** Claims that 2 GiB of frames have come. */
  harm(): void {
    const head = Buffer.alloc(4);
    readSync(this.#area, head, 0, 4, this.#headAt);
    head.writeUInt32LE((head.readUInt32LE() ^ 0x8000_0000) >>> 0);
    for (let write = 0; write < writes; write++) writeSync(this.#area, head, 0, 4, this.#headAt);
  }

  close(): void {
    closeSync(this.#area);
  }
}

/** Of a descriptor that may be closed meanwhile. */
function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
