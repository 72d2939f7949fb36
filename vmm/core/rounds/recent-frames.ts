/**
 * The frames that a replica which does not serve has seen lately and that no record holds yet. A leader that dies takes
 * with it what it had received and not yet agreed on; the clients would send it again, but only after a fifth of a
 * second or more. Where frames reach both replicas, the next leader proposes it instead.
 *
 * Guarantee: bounded in number, bytes and age. A frame may be proposed twice, or not at all, as on a wire.
 */
import type { Crc32c } from '../falcon/crc32c.ts';

const framesMax = 512;
const bytesMax = 1 << 20;
/** By then its sender has sent it again. */
const ageUsMax = 1_000_000;

interface Frame {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly seenUs: number;
}

export class RecentFrames {
  readonly #crc32c: Crc32c;
  /** Oldest first. */
  #frames: Frame[] = [];
  #bytes = 0;
  /** In a record before they were seen here, with how often. */
  readonly #agreed = new Map<string, number>();

  constructor(crc32c: Crc32c) {
    this.#crc32c = crc32c;
  }

  /** A frame came; it is copied. */
  saw(data: Uint8Array, offset: number, length: number, nowUs: number): void {
    const name = this.#nameOf(data, offset, length);
    const agreed = this.#agreed.get(name) ?? 0;
    if (agreed > 0) {
      if (agreed === 1) this.#agreed.delete(name);
      else this.#agreed.set(name, agreed - 1);
      return;
    }
    this.#frames.push({ name, bytes: data.slice(offset, offset + length), seenUs: nowUs });
    this.#bytes += length;
    while (this.#frames.length > framesMax || this.#bytes > bytesMax) this.#forgetAt(0);
  }

  /** A frame is in a record. */
  agreed(data: Uint8Array, offset: number, length: number): void {
    const name = this.#nameOf(data, offset, length);
    const at = this.#frames.findIndex((frame) => frame.name === name);
    if (at !== -1) {
      this.#forgetAt(at);
      return;
    }
    // The leader was quicker: its record came before the frame.
    this.#agreed.set(name, (this.#agreed.get(name) ?? 0) + 1);
    if (this.#agreed.size <= framesMax) return;
    for (const oldest of this.#agreed.keys()) {
      this.#agreed.delete(oldest);
      break;
    }
  }

  /** What nobody has agreed on, oldest first; forgotten here. */
  take(nowUs: number): readonly Uint8Array[] {
    const frames = this.#frames.filter(({ seenUs }) => nowUs - seenUs <= ageUsMax);
    this.clear();
    return frames.map(({ bytes }) => bytes);
  }

  clear(): void {
    this.#frames = [];
    this.#bytes = 0;
    this.#agreed.clear();
  }

  #forgetAt(at: number): void {
    const [frame] = this.#frames.splice(at, 1);
    this.#bytes -= frame?.bytes.length ?? 0;
  }

  #nameOf(data: Uint8Array, offset: number, length: number): string {
    return `${length} ${this.#crc32c(data, offset, length, 0)}`;
  }
}
