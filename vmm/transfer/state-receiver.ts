/**
 * Takes another guest's whole state for a fresh one. Guarantee: it is loaded only when all of it has arrived and its
 * checksum holds.
 */
import { readUint64 } from '../core/falcon/record.ts';
import type { LogIndex } from '../core/ids.ts';
import { pageBytes } from '../io/qemu/layout.ts';
import type { GuestPort } from '../io/qemu/port.ts';
import { MailKind } from '../io/mail.ts';
import { chunkHeaderBytes, pageIsZero, transferredMemory, wordsOf } from './transferred-pages.ts';

/** What the receiver knows once all is loaded. */
export interface LoadedState {
  readonly index: LogIndex;
  readonly virtualNs: number;
}

export class StateReceiver {
  readonly #port: GuestPort;
  readonly #memories: readonly Uint8Array[];
  #prepared = false;
  #begun: (LoadedState & { readonly deliverTail: number; readonly deliverHead: number }) | undefined;

  constructor(port: GuestPort) {
    this.#port = port;
    this.#memories = transferredMemory(port);
  }

  /**
   * Only pages that are not zero travel at first, so what this side has in the others must go: firmware that QEMU put there
   * when it reset the machine, or what an earlier transfer left when it broke off.
   */
  #clear(): void {
    for (const memory of this.#memories) {
      const words = wordsOf(memory);
      for (let page = 0; page < memory.byteLength / pageBytes; page++) {
        if (!pageIsZero(words, page)) memory.fill(0, page * pageBytes, (page + 1) * pageBytes);
      }
    }
  }

  /** Takes one message of a transfer; the last one returns what was loaded. */
  take(kind: number, bytes: Uint8Array): LoadedState | undefined {
    if (kind === MailKind.stateAhead) {
      this.#prepare();
      return undefined;
    }
    if (!this.#prepared) return undefined; // The rest of a transfer that this guest knows nothing of.
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    switch (kind) {
      case MailKind.stateBegin:
        this.#begun = {
          index: readUint64(view, 0) as LogIndex,
          virtualNs: readUint64(view, 8),
          deliverTail: readUint64(view, 16),
          deliverHead: readUint64(view, 24),
        };
        return undefined;
      case MailKind.statePages: {
        const memory = this.#memories[readUint64(view, 0)];
        memory?.set(bytes.subarray(chunkHeaderBytes), readUint64(view, 8) * pageBytes);
        return undefined;
      }
      case MailKind.stateDevice:
        this.#port.deviceState.set(bytes.subarray(chunkHeaderBytes), readUint64(view, 0));
        return undefined;
      default:
        return this.#end(readUint64(view, 0), readUint64(view, 8));
    }
  }

  #prepare(): void {
    // A guest that has run is stopped so that its devices know, and what it would have sent is no longer its own.
    this.#port.drop(this.#port.pause().holdHead);
    this.#clear();
    this.#prepared = true;
    this.#begun = undefined;
  }

  #end(stateBytes: number, checksum: number): LoadedState | undefined {
    const begun = this.#begun;
    if (begun === undefined) return undefined;
    this.#port.deliver.moveTo(begun.deliverTail, begun.deliverHead);
    this.#port.load(stateBytes, checksum);
    this.#port.collect();
    return begun;
  }
}
