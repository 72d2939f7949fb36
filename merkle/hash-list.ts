/** Hashes in a row, as bytes for the hasher and as words for whoever copies or compares them. */
import { grown } from './grow.ts';
import { HASH_BYTES } from './page-hasher.ts';

export const HASH_WORDS = HASH_BYTES / 4;

export class HashList {
  bytes = new Uint8Array(0);
  words = new Uint32Array(0);

  /** Room for `count` hashes. What was in it is lost when it grows. */
  reserve(count: number): void {
    const had = this.bytes.length / HASH_BYTES;
    if (had >= count) return;
    this.bytes = new Uint8Array(grown(had, count) * HASH_BYTES);
    this.words = new Uint32Array(this.bytes.buffer);
  }

  /** Hash `from` of `source` becomes hash `to` of this one. */
  copyFrom(source: HashList, from: number, to: number): void {
    const [target, words] = [this.words, source.words];
    let at = to * HASH_WORDS;
    let sourceAt = from * HASH_WORDS;
    for (const end = at + HASH_WORDS; at < end; at++) target[at] = words[sourceAt++] ?? 0;
  }
}
