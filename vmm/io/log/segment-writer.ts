/** What writes the segments, and what it says: a native thread; its words are documented in native/binding.ts. */
import { native } from '../../../native/binding.ts';

const word = {
  durable: 0,
  failedErrno: 1,
  failedCall: 2,
  preparesEnded: 3,
  prepareErrno: 4,
  preparedFd: 5,
  groups: 6,
};
const waitSliceUs = 1_000_000;

export interface SegmentWriter {
  /** Readable when one of the words below has changed; -1: none. */
  readonly eventFd: number;
  /** Writes that are durable, modulo 2^32. */
  readonly durableWrites: number;
  /** errno of what stopped the writer for good, or 0; and what it was. */
  readonly failedErrno: number;
  readonly failedCall: 'pwrite' | 'fdatasync';
  /** Files prepared, well or not, modulo 2^32; errno and descriptor of the newest. */
  readonly preparesEnded: number;
  readonly prepareErrno: number;
  readonly preparedFd: number;
  /** Copies and queues; false: no room now. Not `sync`: durable with the next that is. */
  write(fd: number, offset: number, bytes: Uint8Array, at: number, length: number, sync: boolean): boolean;
  prepare(file: string, bytes: number, head: Uint8Array): boolean;
  /** Blocks until a word may have changed. */
  wait(): void;
  /** Reads away the rings of `eventFd`. */
  drain(): void;
  /** Finishes what is queued. */
  close(): void;
}

export class NativeSegmentWriter implements SegmentWriter {
  readonly eventFd: number;
  readonly #writer: number;
  readonly #words: Int32Array;
  readonly #fds: Int32Array;
  readonly #ready = new Uint8Array(1);

  constructor(ringBytes: number) {
    const { writer, eventFd, words } = native().logWriterOpen(ringBytes);
    this.#writer = writer;
    this.eventFd = eventFd;
    this.#words = new Int32Array(words);
    this.#fds = Int32Array.of(eventFd);
  }

  get durableWrites(): number {
    return Atomics.load(this.#words, word.durable);
  }

  get failedErrno(): number {
    return Atomics.load(this.#words, word.failedErrno);
  }

  get failedCall(): 'pwrite' | 'fdatasync' {
    return Atomics.load(this.#words, word.failedCall) === 1 ? 'pwrite' : 'fdatasync';
  }

  get preparesEnded(): number {
    return Atomics.load(this.#words, word.preparesEnded);
  }

  get prepareErrno(): number {
    return Atomics.load(this.#words, word.prepareErrno);
  }

  get preparedFd(): number {
    return Atomics.load(this.#words, word.preparedFd);
  }

  /** Group commits so far, modulo 2^32. */
  get groups(): number {
    return Atomics.load(this.#words, word.groups);
  }

  write(fd: number, offset: number, bytes: Uint8Array, at: number, length: number, sync: boolean): boolean {
    return native().logWriterWrite(this.#writer, fd, offset, bytes, at, length, sync);
  }

  prepare(file: string, bytes: number, head: Uint8Array): boolean {
    return native().logWriterPrepare(this.#writer, file, bytes, head);
  }

  wait(): void {
    native().waitReadable(this.#fds, this.#ready, waitSliceUs);
    this.drain();
  }

  drain(): void {
    native().drain(this.eventFd);
  }

  close(): void {
    native().logWriterClose(this.#writer);
  }
}
