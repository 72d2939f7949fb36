/** What both roles of an exchange work on: one guest, its unreconciled set, its tree. A replica has one role at a time. */
import { subtractFrom, uniteInto } from '../../../merkle/bitmap.ts';
import type { ExchangeLink } from '../../../merkle/exchange-choice.ts';
import { Traversal } from '../../../merkle/traversal.ts';
import { MerkleTree } from '../../../merkle/tree.ts';
import type { Crc32c } from '../falcon/crc32c.ts';
import { CommonVersions } from './common-versions.ts';
import type { ExchangeGuest } from './exchange-guest.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';
import type { UnreconciledSet } from './unreconciled-set.ts';

export interface ExchangeSettings {
  readonly crc32c: Crc32c;
  /** Payload of one message; the same on all replicas of a VM. */
  readonly partBytes: number;
  /** More than this is never staged: a peer that sends it is refused. */
  readonly stagingBytesMax: number;
  /** What was not answered for this long is said again. */
  readonly resendUs: number;
  /** What the exchange of hashes is planned for. */
  readonly link: ExchangeLink;
  /** Process and guest of this replica, never used twice by it: unsigned 32 bits. */
  readonly session: number;
  /** For the last common versions of pages that were shipped, from which deltas are made; 64 MiB if not said. */
  readonly commonBytes?: number;
  /** A survey leaves so many pages to the exchange, for which the guest stands; 2,048 (8 MiB) if not said. */
  readonly surveyLeftPages?: number;
}

const commonBytesUsual = 64 << 20;

export class ExchangeMemory {
  readonly guest: ExchangeGuest;
  readonly set: UnreconciledSet;
  readonly tree: MerkleTree;
  /** What both sides had when they were last found equal. */
  readonly common: CommonVersions;
  readonly traversal = new Traversal();
  /** Every page there is. */
  readonly all: Uint32Array;
  /** Of the attempt under way. */
  readonly union: Uint32Array;
  readonly #scratch: Uint32Array;

  constructor(guest: ExchangeGuest, set: UnreconciledSet, settings: ExchangeSettings) {
    this.common = new CommonVersions(guest, settings.crc32c, settings.commonBytes ?? commonBytesUsual);
    this.guest = guest;
    this.set = set;
    this.tree = new MerkleTree(guest.hasher);
    this.all = new Uint32Array(guest.bitmapWords);
    this.union = new Uint32Array(guest.bitmapWords);
    this.#scratch = new Uint32Array(guest.bitmapWords);
    guest.fillAll(this.all);
  }

  /** A copy of a bitmap in a message. Throws `ExchangeRefusal` when it is of another machine. */
  bitmapFrom(payload: Uint8Array, at: number): Uint32Array {
    const bytes = payload.subarray(at);
    if (bytes.length !== this.union.byteLength) {
      throw new ExchangeRefusal(
        `A bitmap of ${bytes.length} bytes came, where this machine has one of ${this.union.byteLength}: both replicas must run the same machine`,
      );
    }
    const words = new Uint32Array(bytes.slice().buffer);
    if (holdsMoreThan(words, this.all))
      throw new ExchangeRefusal('A bitmap names pages that do not exist here');
    return words;
  }

  /** Pages that the guest wrote since, outside the union: loading a state may do that. */
  wroteBeyondUnion(): boolean {
    return holdsMoreThan(this.set.since, this.union);
  }

  /** The union grows by what was written since; the tree is over it as it is now. */
  hashUnion(): void {
    this.fixUnion();
    this.tree.build(this.union);
  }

  /** The union grows by what was written since, and is what is compared. */
  fixUnion(): void {
    this.set.writeInto(this.union);
    this.set.beginComparison(this.union);
  }

  /** The own set as a bitmap; overwritten by the next call. */
  ownSet(): Uint32Array {
    this.#scratch.fill(0);
    this.set.writeInto(this.#scratch);
    return this.#scratch;
  }

  uniteUnion(words: Uint32Array): void {
    uniteInto(this.union, words);
  }
}

/** Whether `words` has a bit that `other` lacks. */
export function holdsMoreThan(words: Uint32Array, other: Uint32Array): boolean {
  const rest = words.slice();
  subtractFrom(rest, other);
  return rest.some((word) => word !== 0);
}
