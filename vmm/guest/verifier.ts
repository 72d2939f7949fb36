/**
 * Compares the memories of leader and major backup while both stand after the same records: both send their dirty
 * bitmap, build the tree over the union, and the backup's root goes to the leader. Guarantees: a page that changed
 * on either side since the last comparison found equal is in the union; the guest stands until its own pages are
 * hashed; a difference is counted page by page and reported, never passed over.
 */
import { readUint64, writeUint64 } from '../core/falcon/record.ts';
import type { LogIndex, ReplicaId } from '../core/ids.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { MailKind } from '../io/mail.ts';
import { PageHasher } from '../io/page-hasher.ts';
import { messageBytesMax, type TransportPeer } from '../io/transport/transport.ts';
import { listBits, uniteInto } from '../../merkle/bitmap.ts';
import { MerkleTree } from '../../merkle/tree.ts';

const hashBytes = 32;

/** What a comparison in progress or just finished is about. */
interface Comparison {
  readonly index: LogIndex;
  readonly partner: TransportPeer;
  readonly leads: boolean;
  bitmapSent: boolean;
}

interface PeerBitmap {
  readonly index: number;
  readonly words: Uint32Array;
}

/** The leader's side after its pages are hashed, until the backup's root has come. */
interface Awaited {
  readonly index: LogIndex;
  readonly partner: TransportPeer;
  readonly union: Uint32Array;
  readonly root: Uint8Array;
  readonly leaves: Uint8Array;
  readonly pages: number;
}

export class Verifier {
  readonly #port: GuestPort;
  readonly #onDivergence: (partner: ReplicaId, text: string) => void;
  readonly #onHashed: (union: Uint32Array, hashes: Uint8Array) => void;
  readonly #tree: MerkleTree;
  /** Invariant: every page changed here since the last comparison found equal is set. */
  readonly #unreconciled: Uint32Array;
  #comparison: Comparison | undefined;
  #peerBitmap: PeerBitmap | undefined;
  /** By index; few, since the leader's lead is bounded. Their unions are not reconciled either. */
  readonly #awaited = new Map<number, Awaited>();
  #earlyRoot: { readonly index: number; readonly root: Uint8Array } | undefined;
  #lastLeaves: { readonly index: number; readonly leaves: Uint8Array } | undefined;
  #verifications = 0;
  #pages = 0;
  #divergentPages = 0;
  #mismatches = 0;

  /** `onHashed` hears of each union that was hashed here, with the hashes of its pages in a row. */
  constructor(
    port: GuestPort,
    onHashed: (union: Uint32Array, hashes: Uint8Array) => void,
    onDivergence: (partner: ReplicaId, text: string) => void,
  ) {
    this.#port = port;
    this.#onHashed = onHashed;
    this.#onDivergence = onDivergence;
    this.#tree = new MerkleTree(new PageHasher(port.blocks));
    this.#unreconciled = new Uint32Array(port.dirtyBitmap.length);
  }

  /** The guest must stand. */
  get busy(): boolean {
    return this.#comparison !== undefined;
  }

  /** Comparisons found equal. */
  get verifications(): number {
    return this.#verifications;
  }

  /** Pages in the unions of all comparisons. */
  get pages(): number {
    return this.#pages;
  }

  /** Comparisons whose roots differed: a bug, or bad memory. */
  get mismatches(): number {
    return this.#mismatches;
  }

  /** Pages found different in them. */
  get divergentPages(): number {
    return this.#divergentPages;
  }

  /** Pages that changed here and that nobody has compared page by page yet. */
  addDirty(words: Uint32Array): void {
    uniteInto(this.#unreconciled, words);
  }

  /** Both sides call this after the record `index`. */
  begin(index: LogIndex, partner: TransportPeer, leads: boolean): void {
    this.#port.collect();
    const dirty = this.#port.dirtyBitmap;
    uniteInto(this.#unreconciled, dirty);
    this.#comparison = { index, partner, leads, bitmapSent: false };
    this.step();
  }

  /** The partner is gone: what was to be compared stays in the unreconciled set. */
  abandon(): void {
    this.#comparison = undefined;
    this.#peerBitmap = undefined;
    for (const { union } of this.#awaited.values()) uniteInto(this.#unreconciled, union);
    this.#awaited.clear();
  }

  /** Goes on as far as it can. True when it did. */
  step(): boolean {
    const comparison = this.#comparison;
    if (comparison === undefined) return false;
    if (!comparison.bitmapSent) {
      comparison.bitmapSent = this.#sendBitmap(comparison);
      if (!comparison.bitmapSent) return false;
    }
    const peer = this.#peerBitmap;
    if (peer?.index !== comparison.index) return false;
    this.#peerBitmap = undefined;
    this.#comparison = undefined;
    this.#compare(comparison, peer.words);
    return true;
  }

  #sendBitmap(comparison: Comparison): boolean {
    const bytes = new Uint8Array(8 + this.#unreconciled.byteLength);
    writeUint64(new DataView(bytes.buffer), 0, comparison.index);
    bytes.set(new Uint8Array(this.#unreconciled.buffer), 8);
    return comparison.partner.send(MailKind.bitmap, bytes);
  }

  #compare(comparison: Comparison, peerWords: Uint32Array): void {
    const union = this.#unreconciled.slice();
    uniteInto(union, peerWords);
    this.#tree.build(union);
    const root = this.#tree.root().slice();
    const leaves = this.#tree.leafCount === 0 ? new Uint8Array(0) : this.#tree.levelHashes(0).slice();
    this.#onHashed(union, leaves);
    const { index, partner } = comparison;
    // The leader keeps the union until it has seen equal roots; what changes from now on is another comparison's.
    this.#unreconciled.fill(0);
    if (comparison.leads) {
      this.#awaited.set(index, { index, partner, union, root, leaves, pages: leaves.length / hashBytes });
      const early = this.#earlyRoot;
      if (early?.index === index) this.#rootArrived(index, early.root);
      this.#earlyRoot = undefined;
      return;
    }
    this.#lastLeaves = { index, leaves };
    const bytes = new Uint8Array(8 + root.length);
    writeUint64(new DataView(bytes.buffer), 0, index);
    bytes.set(root, 8);
    partner.send(MailKind.root, bytes);
  }

  take(peer: TransportPeer, kind: number, bytes: Uint8Array): void {
    const index = readUint64(new DataView(bytes.buffer, bytes.byteOffset), 0);
    const body = bytes.subarray(8);
    switch (kind) {
      case MailKind.bitmap:
        if (body.byteLength === this.#unreconciled.byteLength)
          this.#peerBitmap = { index, words: new Uint32Array(body.slice().buffer) };
        break;
      case MailKind.root:
        if (this.#awaited.has(index)) this.#rootArrived(index, body);
        else this.#earlyRoot = { index, root: body };
        break;
      case MailKind.hashesWanted:
        this.#sendLeaves(peer, index);
        break;
      default:
        this.#leavesArrived(index, body);
    }
  }

  #rootArrived(index: number, root: Uint8Array): void {
    const awaited = this.#awaited.get(index);
    if (awaited === undefined) return;
    if (!equalBytes(root, awaited.root)) {
      this.#mismatches++;
      uniteInto(this.#unreconciled, awaited.union);
      const request = new Uint8Array(8);
      writeUint64(new DataView(request.buffer), 0, awaited.index);
      awaited.partner.send(MailKind.hashesWanted, request);
      return;
    }
    this.#verifications++;
    this.#pages += awaited.pages;
    this.#awaited.delete(index);
  }

  #sendLeaves(peer: TransportPeer, index: number): void {
    const leaves = this.#lastLeaves;
    if (leaves?.index !== index) return;
    const bytes = new Uint8Array(8 + Math.min(leaves.leaves.length, messageBytesMax - 8));
    writeUint64(new DataView(bytes.buffer), 0, index);
    bytes.set(leaves.leaves.subarray(0, bytes.length - 8), 8);
    peer.send(MailKind.hashes, bytes);
  }

  #leavesArrived(index: number, leaves: Uint8Array): void {
    const awaited = this.#awaited.get(index);
    if (awaited === undefined) return;
    const pages = new Uint32Array(awaited.pages);
    listBits(awaited.union, pages);
    const divergent: number[] = [];
    for (let at = 0; at < awaited.leaves.length; at += hashBytes) {
      if (!equalBytes(leaves.subarray(at, at + hashBytes), awaited.leaves.subarray(at, at + hashBytes)))
        divergent.push(pages[at / hashBytes] ?? -1);
    }
    this.#divergentPages += divergent.length;
    const first = divergent.slice(0, 8).map((page) => `0x${page.toString(16)}`);
    this.#onDivergence(
      awaited.partner.id,
      `After record ${index} ${divergent.length} of ${awaited.pages} pages differ: ${first.join(' ')}`,
    );
    this.#awaited.delete(index);
  }
}

function equalBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  for (let at = 0; at < left.length; at++) if (left[at] !== right[at]) return false;
  return true;
}
