/**
 * The last common version of what was shipped: pages and device state, as merkle's staging needs them. Guarantee:
 * something comes in only when both guests were proven equal, on both sides the same and in the same order.
 */
import { CommonPages } from '../../../merkle/common-pages.ts';
import { CommonState } from '../../../merkle/common-state.ts';
import { hashBytesWith } from '../../../merkle/hash-bytes.ts';
import type { StagingParts } from '../../../merkle/staging-writer.ts';
import type { MerkleTree } from '../../../merkle/tree.ts';
import type { Crc32c } from '../falcon/crc32c.ts';
import type { ExchangeGuest } from './exchange-guest.ts';

export class CommonVersions {
  readonly pages: CommonPages;
  readonly state: CommonState;
  readonly parts: StagingParts;

  constructor({ space, hasher }: ExchangeGuest, crc32c: Crc32c, bytes: number) {
    this.pages = new CommonPages(bytes, space.pageLimit, space.pageBytes);
    this.state = new CommonState(hashBytesWith(hasher));
    const checksum: StagingParts['checksum'] = (...range) => crc32c(...range) >>> 0;
    this.parts = { space, common: this.pages, commonState: this.state, checksum };
  }

  /** Both guests are proven equal, and stand: the first `count` of `pages` were shipped, and the state. */
  keep(tree: MerkleTree, pages: Uint32Array, count: number, state: Uint8Array): void {
    this.pages.keep(this.parts.space, tree, pages, count);
    this.state.keep(state);
  }

  /** One side begins anew, so the other one does, too. */
  clear(): void {
    this.pages.clear();
    this.state.clear();
  }
}
