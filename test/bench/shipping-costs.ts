/** What shipping divergent pages costs: really written, checked and applied between two memories. */
import { CommonPages } from '../../merkle/common-pages.ts';
import { CommonState } from '../../merkle/common-state.ts';
import { stagingBytesMax } from '../../merkle/staging-format.ts';
import { StagingReader } from '../../merkle/staging-reader.ts';
import { StagingWriter, type StagingParts } from '../../merkle/staging-writer.ts';
import { MerkleTree } from '../../merkle/tree.ts';
import { native } from '../../native/binding.ts';
import { crc32cWith } from '../../vmm/core/falcon/crc32c.ts';
import { PageHasher, pageSpaceOf } from '../../vmm/io/page-hasher.ts';

interface Memory {
  readonly blocks: readonly { memory: ArrayBuffer; pageCount: number; bitmapBit: number }[];
}

const cacheBytes = 64 << 20;

/** One side of the shipping, over the memory of a guest. */
export class ShippingSide {
  readonly parts: StagingParts;
  readonly tree: MerkleTree;

  constructor({ blocks }: Memory, bitmapWords: number) {
    const space = pageSpaceOf(blocks, bitmapWords);
    this.parts = {
      space,
      common: new CommonPages(cacheBytes, space.pageLimit),
      commonState: new CommonState((bytes) => native().blake3(bytes)),
      checksum: crc32cWith(native().crc32cAt),
    };
    this.tree = new MerkleTree(new PageHasher(blocks));
  }

  /** After a round that was applied. */
  keep(bitmap: Uint32Array, pages: Uint32Array, state: Uint8Array): void {
    this.tree.build(bitmap);
    this.parts.common.keep(this.parts.space, this.tree, pages, pages.length);
    this.parts.commonState.keep(state);
  }
}

export interface Shipped {
  readonly bytes: number;
  readonly stateBytes: number;
  readonly writeUs: number;
  /** The backup's: check and apply. */
  readonly applyUs: number;
  /** Of the leader, after the backup's answer. */
  readonly keepUs: number;
}

/** A leader and a backup that ship the same pages in each round. */
export class ShippingCosts {
  readonly #leader: ShippingSide;
  readonly #backup: ShippingSide;
  readonly #pages: Uint32Array;
  readonly #bitmap: Uint32Array;
  readonly #writer: StagingWriter;
  readonly #reader: StagingReader;
  readonly #area: Uint8Array<ArrayBuffer>;
  readonly #backupState: Uint8Array;
  #attempt = 0;

  constructor(leader: Memory, backup: Memory, pages: Uint32Array, bitmap: Uint32Array, stateBytes: number) {
    this.#leader = new ShippingSide(leader, bitmap.length);
    this.#backup = new ShippingSide(backup, bitmap.length);
    this.#pages = pages;
    this.#bitmap = bitmap;
    this.#writer = new StagingWriter(this.#leader.parts);
    this.#reader = new StagingReader(this.#backup.parts);
    this.#area = new Uint8Array(stagingBytesMax(pages.length, stateBytes));
    this.#backupState = new Uint8Array(stateBytes);
  }

  /** Ships all pages as they are now, and puts the round behind both. */
  ship(state: Uint8Array): Shipped {
    const numbers = { term: 1, round: 1, attempt: ++this.#attempt };
    const { length } = this.#pages;
    const began = performance.now();
    const bytes = this.#writer.write(this.#area, numbers, this.#pages, length, state);
    const written = performance.now();
    const complete = this.#reader.check(this.#area, numbers, this.#pages, length, this.#backupState.length);
    if (!complete) throw new Error(`${this.#reader.wantedCount} bases were missing`);
    this.#reader.apply(this.#backupState);
    const applied = performance.now();
    this.#leader.keep(this.#bitmap, this.#pages, state);
    const kept = performance.now();
    this.#backup.keep(this.#bitmap, this.#pages, this.#backupState);
    if (Buffer.compare(this.#leader.tree.root(), this.#backup.tree.root()) !== 0)
      throw new Error('The memories differ after the pages were applied');
    return {
      bytes,
      stateBytes: this.#writer.stateBytes,
      writeUs: (written - began) * 1000,
      applyUs: (applied - written) * 1000,
      keepUs: (kept - applied) * 1000,
    };
  }
}
