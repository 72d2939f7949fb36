/**
 * A ring in a peer's memory, filled through a copy of it in our own: entries are written there, and put across in
 * order as far as they were committed. Guarantees: `posted` tells only of bytes whose puts were accepted, so whoever
 * is told `posted` afterwards, on the same connection, finds them.
 *
 * Invariant: bytes in the copy change only after the peer has consumed them, hence never while a put reads them.
 */
import type { FabricEndpoint } from '../../../native/fabric.ts';
import { RingProducer } from '../ring.ts';

export class FabricRing {
  readonly producer: RingProducer;
  readonly #endpoint: FabricEndpoint;
  readonly #memory: number;
  readonly #memoryOffset: number;
  readonly #bytes: number;
  readonly #remote: number;
  readonly #remoteOffset: number;
  readonly #token: number;
  readonly #putBytesMax: number;
  #posted = 0;

  /** `memory` from `memoryOffset`: the copy, `bytes` long, a power of two; `token`: what its puts are polled as. */
  constructor(
    endpoint: FabricEndpoint,
    copy: { readonly memory: number; readonly offset: number; readonly bytes: number },
    target: { readonly remote: number; readonly offset: number },
    token: number,
    readTail: () => number,
  ) {
    this.#endpoint = endpoint;
    this.#memory = copy.memory;
    this.#memoryOffset = copy.offset;
    this.#bytes = copy.bytes;
    this.#remote = target.remote;
    this.#remoteOffset = target.offset;
    this.#token = token;
    this.#putBytesMax = endpoint.putBytesMax();
    const data = new Uint8Array(endpoint.memoryBuffer(copy.memory), copy.offset, copy.bytes);
    this.producer = new RingProducer(data, new Uint32Array(1), 0, readTail);
  }

  /** Position up to which puts were accepted. */
  get posted(): number {
    return this.#posted;
  }

  get hasBacklog(): boolean {
    return this.#posted !== this.producer.head;
  }

  /** 0: all is posted; `tryAgain` of native/fabric.ts; else the error of a put that failed. */
  post(): number {
    while (this.hasBacklog) {
      const place = this.#posted & (this.#bytes - 1);
      const committed = (this.producer.head - this.#posted) >>> 0;
      const bytes = Math.min(committed, this.#bytes - place, this.#putBytesMax);
      const status = this.#endpoint.put(
        this.#remote,
        this.#remoteOffset + place,
        this.#memory,
        this.#memoryOffset + place,
        bytes,
        this.#token,
      );
      if (status !== 0) return status;
      this.#posted = (this.#posted + bytes) >>> 0;
    }
    return 0;
  }
}
