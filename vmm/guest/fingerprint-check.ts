/**
 * Tells that two lockstep guests are equal without making either wait: at each verification record, each side hashes
 * the pages that its guest has changed since the last one, and which pages these are, into one fingerprint. Equal
 * fingerprints at every verification since the memories were equal: they are equal still. A difference may come from
 * a page that only one side's bitmap names, so it is no verdict: it asks for a comparison of the standing guests.
 */
import { native } from '../../native/binding.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { PageHasher } from '../io/page-hasher.ts';
import { MerkleTree } from '../../merkle/tree.ts';

interface Fingerprint {
  /** 32 bytes, over the dirty bitmap and the root of the tree over its pages. */
  readonly hash: Uint8Array;
  readonly pages: number;
}

export class FingerprintCheck {
  readonly #port: GuestPort;
  readonly #tree: MerkleTree;
  /** The leader's, by index, until the backup's has come, and the other way round; few, as its lead is bounded. */
  readonly #own = new Map<number, Fingerprint>();
  readonly #peers = new Map<number, Uint8Array>();
  #equal = 0;
  #pages = 0;
  #differ = false;

  constructor(port: GuestPort) {
    this.#port = port;
    this.#tree = new MerkleTree(new PageHasher(port.blocks));
  }

  /** Verifications whose fingerprints were equal. */
  get equal(): number {
    return this.#equal;
  }

  /** Pages in them. */
  get pages(): number {
    return this.#pages;
  }

  /** Some differed: only a comparison can say whether the memories do. */
  get differ(): boolean {
    return this.#differ;
  }

  /** Of what changed since the last one; the guest stands. Leaves the bitmap in the port. */
  take(): Fingerprint {
    const pages = this.#port.collect();
    const { dirtyBitmap } = this.#port;
    this.#tree.build(dirtyBitmap);
    const root = this.#tree.root();
    const input = new Uint8Array(dirtyBitmap.byteLength + root.length);
    input.set(new Uint8Array(dirtyBitmap.buffer, dirtyBitmap.byteOffset, dirtyBitmap.byteLength));
    input.set(root, dirtyBitmap.byteLength);
    return { hash: native().blake3(input), pages };
  }

  own(index: number, fingerprint: Fingerprint): void {
    this.#own.set(index, fingerprint);
    this.#match(index);
  }

  peerTold(index: number, hash: Uint8Array): void {
    this.#peers.set(index, hash);
    this.#match(index);
  }

  /** The partner is another one, or none: what waits for it waits in vain. */
  abandon(): void {
    this.#own.clear();
    this.#peers.clear();
    this.#differ = false;
  }

  #match(index: number): void {
    const own = this.#own.get(index);
    const peers = this.#peers.get(index);
    if (own === undefined || peers === undefined) return;
    this.#own.delete(index);
    this.#peers.delete(index);
    if (Buffer.compare(own.hash, peers) === 0) {
      this.#equal++;
      this.#pages += own.pages;
    } else {
      this.#differ = true;
    }
  }
}
