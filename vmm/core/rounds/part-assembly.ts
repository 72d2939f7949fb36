/**
 * Puts the parts of one message together, in whatever order and however often they come. Guarantee: `complete`
 * means that every byte lies where its sender meant it.
 */
import { grown } from '../../../merkle/grow.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';

/** Room that is kept from one message to the next. */
const keptBytesMax = 16 << 20;

export class PartAssembly {
  readonly #partBytes: number;
  readonly #bytesMax: number;
  #bytes = new Uint8Array(0);
  #arrived = new Uint8Array(0);
  #arrivedBytes = 0;

  /** `bytesMax`: a message that claims more is refused. */
  constructor(partBytes: number, bytesMax: number) {
    this.#partBytes = partBytes;
    this.#bytesMax = bytesMax;
  }

  begin(): void {
    // One large transfer must not hold its memory for ever.
    if (this.#bytes.length > keptBytesMax) this.#bytes = new Uint8Array(0);
    this.#arrived.fill(0);
    this.#arrivedBytes = 0;
  }

  /** False: this part was here already. */
  add(part: number, payload: Uint8Array): boolean {
    const at = part * this.#partBytes;
    const end = at + payload.length;
    if (payload.length > this.#partBytes || end > this.#bytesMax) {
      throw new ExchangeRefusal(
        `Part ${part} of ${payload.length} bytes ends at ${end}, and ${this.#bytesMax} bytes are taken at most`,
      );
    }
    if (this.#arrived[part] === 1) return false;
    this.#arrived = withRoom(this.#arrived, part + 1);
    this.#bytes = withRoom(this.#bytes, end);
    this.#arrived[part] = 1;
    this.#arrivedBytes += payload.length;
    this.#bytes.set(payload, at);
    return true;
  }

  complete(totalBytes: number): boolean {
    const parts = Math.max(1, Math.ceil(totalBytes / this.#partBytes));
    for (let part = 0; part < parts; part++) if (this.#arrived[part] !== 1) return false;
    return this.#arrivedBytes === totalBytes;
  }

  /** A view, good until the next `begin`. */
  bytes(totalBytes: number): Uint8Array {
    return this.#bytes.subarray(0, totalBytes);
  }
}

function withRoom(array: Uint8Array<ArrayBuffer>, count: number): Uint8Array<ArrayBuffer> {
  if (array.length >= count) return array;
  const larger = new Uint8Array(grown(array.length, count));
  larger.set(array);
  return larger;
}
