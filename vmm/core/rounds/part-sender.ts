/**
 * Cuts what is to be said into messages that the transport takes, one at a time and as it has room. Guarantee:
 * sent again from its beginning, a message is the same byte for byte as long as its source is.
 */
import type { Crc32c } from '../falcon/crc32c.ts';
import { EXCHANGE_HEADER_BYTES, sealMessage, type ExchangeHeader } from './exchange-message.ts';

/** Bytes that are made while they are sent. */
export interface PartSource {
  rewind(): void;
  /** Fills `out` from its beginning, whole unless this is the end; returns how many bytes. */
  fill(out: Uint8Array): number;
}

type Heading = Pick<ExchangeHeader, 'type' | 'term' | 'attempt' | 'index' | 'session' | 'step'>;

/** A message whose bytes are all there. */
class WholeSource implements PartSource {
  bytes = new Uint8Array(0);
  #at = 0;

  rewind(): void {
    this.#at = 0;
  }

  fill(out: Uint8Array): number {
    const part = this.bytes.subarray(this.#at, this.#at + out.length);
    out.set(part);
    this.#at += part.length;
    return part.length;
  }
}

export class PartSender {
  readonly #crc32c: Crc32c;
  readonly #partBytes: number;
  readonly #buffer: Uint8Array;
  readonly #whole = new WholeSource();
  #heading: Heading | undefined;
  #source: PartSource = this.#whole;
  #totalBytes = 0;
  #part = 0;
  /** The message at hand, sealed, until it is sent; undefined: to be made. */
  #ready: Uint8Array | undefined;
  #exhausted = true;
  sentBytes = 0;
  sentMessages = 0;

  constructor(crc32c: Crc32c, partBytes: number) {
    this.#crc32c = crc32c;
    this.#partBytes = partBytes;
    this.#buffer = new Uint8Array(EXCHANGE_HEADER_BYTES + partBytes);
  }

  /** Begins to say `payload`; it must stay as it is until something else is begun. */
  begin(heading: Heading, payload: Uint8Array): void {
    this.#whole.bytes = payload as Uint8Array<ArrayBuffer>;
    this.#begin(heading, this.#whole, payload.length);
  }

  beginStream(heading: Heading, source: PartSource): void {
    this.#begin(heading, source, 0);
  }

  #begin(heading: Heading, source: PartSource, totalBytes: number): void {
    this.#heading = heading;
    this.#source = source;
    this.#totalBytes = totalBytes;
    this.again();
  }

  /** Says it once more from its beginning. */
  again(): void {
    if (this.#heading === undefined) return;
    this.#source.rewind();
    this.#part = 0;
    this.#ready = undefined;
    this.#exhausted = false;
  }

  stop(): void {
    this.#heading = undefined;
    this.#ready = undefined;
    this.#exhausted = true;
  }

  /** All of it was sent. */
  get exhausted(): boolean {
    return this.peek() === undefined;
  }

  /** The next message, the same until `sent`; undefined: there is none now. */
  peek(): Uint8Array | undefined {
    if (this.#ready === undefined && !this.#exhausted) this.#make();
    return this.#ready;
  }

  sent(): void {
    this.sentBytes += this.#ready?.length ?? 0;
    this.sentMessages++;
    this.#ready = undefined;
  }

  #make(): void {
    const heading = this.#heading;
    if (heading === undefined) return;
    const bytes = this.#source.fill(this.#buffer.subarray(EXCHANGE_HEADER_BYTES));
    // What is empty is said too, in one part.
    if (bytes === 0 && this.#part > 0) {
      this.#exhausted = true;
      return;
    }
    const message = this.#buffer.subarray(0, EXCHANGE_HEADER_BYTES + bytes);
    sealMessage(message, { ...heading, part: this.#part, totalBytes: this.#totalBytes }, this.#crc32c);
    this.#ready = message;
    this.#part++;
    if (bytes < this.#partBytes) this.#exhausted = true;
  }
}
