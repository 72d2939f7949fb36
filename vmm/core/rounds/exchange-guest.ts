/** What a round's exchange needs of the guest that stands: injected, so that the same machine runs in tests. */
import type { PageHasher } from '../../../merkle/page-hasher.ts';
import type { PageSpace } from '../../../merkle/page-space.ts';

export interface ExchangeGuest {
  /** 32-bit words of a bitmap of pages. */
  readonly bitmapWords: number;
  /** The pages themselves, where they lie: the exchange reads and writes them while the guest stands. */
  readonly space: PageSpace;
  /** Hashes pages as they are now. */
  readonly hasher: PageHasher;
  /** Sets the bit of every page that exists. */
  fillAll(words: Uint32Array): void;
  /**
   * Sets the bits of the pages written since the last call, and forgets them. The guest stands, its devices have
   * drained: from now on nothing but the exchange writes its memory until the next round.
   */
  collectInto(words: Uint32Array): void;
  /** Before `saveState`, which then may find the work done. */
  beginSave(): void;
  /** All that is not in pages: devices, clock, frames not yet taken. A view, good until the next call. */
  saveState(): Uint8Array;
  /** Throws `ExchangeRefusal` on a state that `loadState` could not take; changes nothing. */
  checkState(state: Uint8Array): void;
  /** Takes what `saveState` of another replica gave, and empties the output held here. Throws on a state it cannot load. */
  loadState(state: Uint8Array): void;
  /** The first `count` of `pages` were written from outside: translations of code in them are void. */
  invalidate(pages: Uint32Array, count: number): void;
}
