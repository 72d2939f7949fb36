/**
 * A guest's state as what changed since the last one that both sides had: of tens of kilobytes of devices some
 * hundred bytes change in a round. The base is named by its length and checksum; whoever has another one, or none,
 * asks for the whole.
 *
 *   u32 bytes of the base   u32 its CRC-32C   u32 bytes of the state   u32 its CRC-32C
 *   then runs: u32 offset   u32 bytes   the bytes
 */
import type { Crc32c } from '../falcon/crc32c.ts';
import { ExchangeRefusal } from './exchange-refusal.ts';

const HEADER_BYTES = 16;
const RUN_BYTES = 8;

export class StateBase {
  readonly #crc32c: Crc32c;
  /** Invariant: both sides had exactly this when they were last found equal, if this side knows any. */
  #base = new Uint8Array(0);
  #checksum = 0;

  constructor(crc32c: Crc32c) {
    this.#crc32c = crc32c;
  }

  /** Both sides have this state now. */
  keep(state: Uint8Array): void {
    this.#base = state.slice();
    this.#checksum = this.#sum(state);
  }

  #sum(bytes: Uint8Array): number {
    return this.#crc32c(bytes, 0, bytes.length, 0);
  }

  /** The state as a delta, or undefined where that is not shorter. */
  deltaOf(state: Uint8Array): Uint8Array | undefined {
    const base = this.#base;
    if (base.length === 0) return undefined;
    const out = new Uint8Array(state.length);
    const view = new DataView(out.buffer);
    if (out.length < HEADER_BYTES) return undefined;
    let at = HEADER_BYTES;
    for (let from = 0; from < state.length;) {
      if (state[from] === base[from]) {
        from++;
        continue;
      }
      const end = endOfRun(state, base, from);
      if (at + RUN_BYTES + end - from > out.length) return undefined;
      view.setUint32(at, from, true);
      view.setUint32(at + 4, end - from, true);
      out.set(state.subarray(from, end), at + RUN_BYTES);
      at += RUN_BYTES + end - from;
      from = end;
    }
    view.setUint32(0, base.length, true);
    view.setInt32(4, this.#checksum, true);
    view.setUint32(8, state.length, true);
    view.setInt32(12, this.#sum(state), true);
    return out.subarray(0, at);
  }

  /** What a delta stands for; undefined: its base is not here. Throws `ExchangeRefusal` where it makes no sense. */
  apply(delta: Uint8Array): Uint8Array | undefined {
    if (delta.length < HEADER_BYTES) throw new ExchangeRefusal(`A state's delta of ${delta.length} bytes`);
    const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
    const known = view.getUint32(0, true) === this.#base.length && view.getInt32(4, true) === this.#checksum;
    if (!known || this.#base.length === 0) return undefined;
    const bytes = view.getUint32(8, true);
    // What is longer than its base came in runs.
    if (bytes > this.#base.length + delta.length)
      throw new ExchangeRefusal(`A state of ${bytes} bytes from a delta of ${delta.length}`);
    const state = new Uint8Array(bytes);
    state.set(this.#base.subarray(0, bytes));
    for (let at = HEADER_BYTES; at < delta.length;) {
      if (at + RUN_BYTES > delta.length) throw new ExchangeRefusal('A state ends within a run');
      const offset = view.getUint32(at, true);
      const length = view.getUint32(at + 4, true);
      at += RUN_BYTES;
      if (length > delta.length - at || offset + length > bytes)
        throw new ExchangeRefusal(`A run of ${length} bytes at ${offset} goes past the state's ${bytes}`);
      state.set(delta.subarray(at, at + length), offset);
      at += length;
    }
    if (view.getInt32(12, true) !== this.#sum(state))
      throw new ExchangeRefusal('A state is not what its checksum says');
    return state;
  }
}

/** A run goes on over a few equal bytes where a new one would cost more. */
function endOfRun(state: Uint8Array, base: Uint8Array, from: number): number {
  let end = from + 1;
  for (let at = end; at < state.length && at - end < RUN_BYTES; at++)
    if (state[at] !== base[at]) end = at + 1;
  return end;
}
