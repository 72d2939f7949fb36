/** Memory that one leader of one term writes into: a ring of records and a heartbeat block. */
import { HEARTBEAT_BYTES } from '../../vmm/core/falcon/signal.ts';
import type { ReplicaId } from '../../vmm/core/ids.ts';

export class Region {
  readonly heartbeat = new Uint8Array(HEARTBEAT_BYTES);
  readonly writer: ReplicaId;
  readonly term: number;
  /** Entries read, and the newest one that the writer's head word tells of. */
  consumed = 0;
  newestSlot = -1;
  stuckSinceUs = -1;
  /** What was read stays where it is until it is written over, as in a real ring. */
  readonly #slots: (Uint8Array | undefined)[];

  constructor(writer: ReplicaId, term: number, slots: number) {
    this.writer = writer;
    this.term = term;
    this.#slots = new Array<Uint8Array | undefined>(slots);
  }

  write(slot: number, bytes: Uint8Array): void {
    this.#slots[slot % this.#slots.length] = bytes;
    this.newestSlot = Math.max(this.newestSlot, slot);
  }

  /** What lies where the next entry should be, once the head has come so far. */
  get next(): Uint8Array | undefined {
    return this.consumed <= this.newestSlot ? this.#slots[this.consumed % this.#slots.length] : undefined;
  }

  get waits(): boolean {
    return this.consumed <= this.newestSlot;
  }

  hasRoomFor(slot: number): boolean {
    return slot - this.consumed < this.#slots.length;
  }
}
