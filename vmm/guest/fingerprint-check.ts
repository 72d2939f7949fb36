/**
 * Tells that two lockstep guests are equal without making either wait: at each verification record, each side hashes
 * the pages that its guest has changed since the last one, and which pages these are, into one fingerprint. Equal
 * fingerprints at every verification since the memories were equal: they are equal still. A difference is no verdict, but
 * asks for a comparison of the standing guests.
 *
 * A dirty page counts only where its hash is another one than it was. Which pages are dirty is not the same on both
 * sides: a walk through the guest's page tables marks them as written under TCG, and when there is one depends on the
 * size of the TLB, which QEMU chooses by the host's time (ptw_translate, tlb_mmu_resize_locked).
 */
import { native } from '../../native/binding.ts';
import { listBits } from '../../merkle/bitmap.ts';
import { HASH_BYTES } from '../../merkle/page-hasher.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { PageHasher } from '../io/page-hasher.ts';
import { KnownHashes } from './known-hashes.ts';

const hashWords = HASH_BYTES / 4;
const entryWords = 1 + hashWords;

interface Fingerprint {
  /** 32 bytes, over the numbers and hashes of the pages that have changed. */
  readonly hash: Uint8Array;
  readonly pages: number;
}

export class FingerprintCheck {
  readonly #port: GuestPort;
  readonly #hasher: PageHasher;
  readonly #known: KnownHashes;
  /** The port's collections that `#known` has followed: what another one has taken, it knows nothing of. */
  #collections = -1;
  #dirty = new Uint32Array(0);
  #hashes = new Uint32Array(0);
  #entries = new Uint32Array(0);
  /** The leader's, by index, until the backup's has come, and the other way round; few, as its lead is bounded. */
  readonly #own = new Map<number, Fingerprint>();
  readonly #peers = new Map<number, Uint8Array>();
  #equal = 0;
  #pages = 0;
  #differ = false;

  constructor(port: GuestPort) {
    this.#port = port;
    this.#hasher = new PageHasher(port.blocks);
    this.#known = new KnownHashes(port.dirtyBitmap.length);
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
    if (this.#port.collections !== this.#collections) this.#known.forget();
    const count = this.#port.collect();
    this.#collections = this.#port.collections;
    if (this.#dirty.length < count) {
      this.#dirty = new Uint32Array(2 * count);
      this.#hashes = new Uint32Array(2 * count * hashWords);
      this.#entries = new Uint32Array(2 * count * entryWords);
    }
    listBits(this.#port.dirtyBitmap, this.#dirty);
    this.#hasher.hashPages(this.#dirty, count, new Uint8Array(this.#hashes.buffer));
    let pages = 0;
    for (let at = 0; at < count; at++) {
      const page = this.#dirty[at] ?? 0;
      if (!this.#known.note(page, this.#hashes, at * hashWords)) continue;
      const to = entryWords * pages++;
      this.#entries[to] = page;
      this.#entries.set(this.#hashes.subarray(at * hashWords, (at + 1) * hashWords), to + 1);
    }
    const input = new Uint8Array(this.#entries.buffer, 0, 4 * entryWords * pages);
    return { hash: native().blake3(input), pages };
  }

  /** A comparison has collected, and hashed `pages`, as the bitmap has them: `hashes` in a row. */
  learn(pages: Uint32Array, hashes: Uint8Array): void {
    if (this.#port.collections !== this.#collections + 1) this.#known.forget();
    this.#collections = this.#port.collections;
    const count = hashes.length / HASH_BYTES;
    const words = new Uint32Array(hashes.slice().buffer);
    const list = new Uint32Array(count);
    listBits(pages, list);
    for (let at = 0; at < count; at++) this.#known.note(list[at] ?? 0, words, at * hashWords);
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
