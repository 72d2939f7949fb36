/**
 * The small state that both ends of a fabric session keep overwriting in each other's memory, as one block:
 *
 *     0 u32 CRC-32C over 4 to 191           4 u32 number of this block, rising
 *     8 u32 head of the writer's messages  12 u32 how far the writer has read the reader's messages
 *    16 u32 serial of the region that the writer keeps open for the reader, 0: none
 *    20 u32 how far the writer has read that region
 *    24 u32 serial of the reader's region that the writer fills, 0: none
 *    28 u32 head of the records in it
 *    32 u32 the writer puts nothing more into regions of the reader up to this serial
 *    64 ack block                         128 heartbeat block
 *
 * Everything is absolute and the newest wins, so a block that was lost is made good by any later one. No transport
 * promises an order of bytes within one put: a block counts only once its checksum holds.
 */
import { native } from '../../../native/binding.ts';
import { signalBytesMax } from './transport.ts';

export const stateBytes = 192;
export const stateWord = {
  checksum: 0,
  number: 1,
  messageHead: 2,
  messageCredit: 3,
  openSerial: 4,
  openCredit: 5,
  filledSerial: 6,
  filledHead: 7,
  leftSerial: 8,
} as const;
const ackOffset = 64;
const heartbeatOffset = 128;

/** A private copy of one end's state. */
export class StateBlock {
  readonly bytes = new Uint8Array(stateBytes);
  readonly words = new Uint32Array(this.bytes.buffer);
  readonly ack = this.bytes.subarray(ackOffset, ackOffset + signalBytesMax);
  readonly heartbeat = this.bytes.subarray(heartbeatOffset, heartbeatOffset + signalBytesMax);
  readonly #checked = this.bytes.subarray(4);

  word(index: number): number {
    return this.words[index] ?? 0;
  }

  /** Numbers and seals what stands here. */
  seal(): void {
    this.words[stateWord.number] = (this.word(stateWord.number) + 1) >>> 0;
    this.words[stateWord.checksum] = this.#sum();
  }

  get isWhole(): boolean {
    return this.words[stateWord.checksum] === this.#sum();
  }

  #sum(): number {
    return native().crc32c(this.#checked, 0);
  }
}

/** Reads the other end's blocks out of memory that it writes whenever it likes. */
export class StateReader {
  /** The newest block that was whole. */
  readonly state = new StateBlock();
  readonly #landing: Uint8Array;
  readonly #landingWords: Uint32Array;
  readonly #candidate = new StateBlock();

  constructor(landing: Uint8Array) {
    this.#landing = landing;
    this.#landingWords = new Uint32Array(landing.buffer, landing.byteOffset, stateBytes / 4);
  }

  /** True when a newer block was taken. */
  look(): boolean {
    const { state } = this;
    const seen = Atomics.load(this.#landingWords, stateWord.checksum);
    if (seen === state.word(stateWord.checksum)) return false;
    const candidate = this.#candidate;
    candidate.bytes.set(this.#landing);
    // Torn: looked at again. Older: it came by a connection that has ended, a newer one follows.
    const ahead = (candidate.word(stateWord.number) - state.word(stateWord.number)) | 0;
    if (ahead <= 0 || !candidate.isWhole) return false;
    state.bytes.set(candidate.bytes);
    return true;
  }
}
