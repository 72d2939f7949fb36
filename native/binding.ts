/**
 * The typed face of the native addon. It moves, maps, waits and hashes bytes; it decides nothing.
 * Every call checks its arguments and throws a TypeError or RangeError that names the bad one; a failed
 * system call throws an Error with `code` (errno name), `syscall` and `errno` (negative), as Node's own do.
 * Descriptors it returns are close-on-exec and the caller's to close. It may be loaded in any number of worker
 * threads; a mapping belongs to the thread that made it (share the descriptor, not the buffer).
 */
import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface ReceivedMessage {
  /** Bytes written into the caller's buffer; 0 when the peer has hung up. */
  readonly bytes: number;
  /** File descriptors that came along; the caller owns and closes them. */
  readonly fds: readonly number[];
}

/** A thread that writes a log; see native/src/log_writer.h. */
export interface LogWriter {
  /** Names it in the other calls, which only the thread that opened it may make. */
  readonly writer: number;
  /** Rings when something became durable, failed, or was prepared. The writer's own: it is closed with it. */
  readonly eventFd: number;
  /**
   * Eight Int32, to be read with Atomics.load: 0 writes that are durable (modulo 2^32); 1 errno of the failure that
   * stopped the writer for good, or 0; 2 the call that failed (1 pwrite, 2 fdatasync); 3 prepared files that have
   * come to an end (modulo 2^32); 4 errno of the newest, or 0; 5 its descriptor, from then on the caller's, or -1;
   * 6 group commits (modulo 2^32).
   */
  readonly words: ArrayBuffer;
}

export interface NativeBinding {
  /** Anonymous shared memory, zeroed (memfd_create, sealed against shrinking). Returns its file descriptor.
   * `name` (1 to 249 bytes) is for people who read /proc. */
  memoryCreate(name: string, bytes: number): number;
  /**
   * Maps `bytes` (at most 4 GiB, the largest buffer of Node 20) from `offsetBytes` (a multiple of 4096) of `fd`,
   * shared. The fd may be closed afterwards. The mapping ends with `memoryUnmap`, when the buffer is collected,
   * or with its thread. What lies past the end of the file is refused, but memory whose owner shrinks it later,
   * or a store into a mapping that is not `writable`, kills the process.
   */
  memoryMap(fd: number, offsetBytes: number, bytes: number, writable: boolean): ArrayBuffer;
  /** Ends a mapping at once; the buffer is detached, its views are empty. Once only: TypeError afterwards. */
  memoryUnmap(buffer: ArrayBuffer): void;

  /** CRC-32C (Castagnoli, reflected, as in RFC 3720) continued from `seed` (0 to begin). */
  crc32c(bytes: Uint8Array, seed: number): number;
  /** The same over `length` bytes from `at` on, seed and result as signed 32 bits: leaves no garbage behind. */
  readonly crc32cAt: (bytes: Uint8Array, at: number, length: number, seed: number) => number;
  /** Copies `length` bytes; the ranges may overlap. Leaves no garbage behind, as `set(subarray())` does. */
  readonly copyBytes: (
    target: Uint8Array,
    targetAt: number,
    source: Uint8Array,
    sourceAt: number,
    length: number,
  ) => void;

  /** Frequency of this machine's time stamp counter, measured against the monotonic clock for 20 ms, in which the
   * thread sleeps; some 10 parts in a million off. What a free-running microvm under TCG must be told. */
  tscKhz(): number;

  /** A pipe [readFd, writeFd], both non-blocking and close-on-exec: the doorbell between agents. */
  pipeCreate(): [number, number];
  /** Waits until one of `fds` is readable or hung up, without turning the event loop. `ready[i]` becomes 1
   * for each such fd, else 0. Returns how many; 0 after `timeoutUs` microseconds (negative: no limit). At most
   * 256 fds; a closed one is an error (EBADF). Signals do not end the wait, and neither does
   * `worker.terminate()`: their handlers run after it. */
  waitReadable(fds: Int32Array, ready: Uint8Array, timeoutUs: number): number;
  /** Rings an eventfd (8 bytes) or a doorbell pipe (1 byte); a full one is already rung. */
  ring(fd: number, kind: 'eventfd' | 'pipe'): void;
  /** Reads away all rings of an eventfd or a doorbell pipe; never blocks. */
  drain(fd: number): void;
  /**
   * Descriptor of a page of this process, the same at each call; open it as /proc/PID/fd/N. Its first two 32-bit words
   * are 1; one or both become 0 as soon as the process is being ended, before its memory is given back.
   */
  lifeMemory(): number;
  /** A descriptor that becomes readable when the process ends (pidfd_open). */
  pidfdOpen(pid: number): number;

  /** Starts a thread that writes what is given to it, through a buffer of `ringBytes` (4096 to 2^30). */
  logWriterOpen(ringBytes: number): LogWriter;
  /**
   * Copies `length` bytes from `at` of `bytes`, to be written at `offsetBytes` of `fd`, which must stay open until
   * they are durable. All that waits goes out together and is synced by one fdatasync for each file. Not `sync`:
   * a later write that is makes them durable. False: no room now, or 8192 writes wait. After a failure they wait
   * for ever.
   */
  logWriterWrite(
    writer: number,
    fd: number,
    offsetBytes: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    sync: boolean,
  ): boolean;
  /**
   * Makes a file of `bytes` (mode 0600) on another thread, `head` and then zeros, with its place on the disk taken,
   * and syncs it and its folder. Words 3 to 5 tell when and how it ended; after a failure there is no file, unless one was there
   * before (EEXIST). False: another is under way.
   */
  logWriterPrepare(writer: number, path: string, bytes: number, head: Uint8Array): boolean;
  /** Writes and syncs what waits, and ends the thread. */
  logWriterClose(writer: number): void;
  /** Drops what the page cache holds of a file and is on disk: the next read comes from the disk itself. */
  fileForgetCached(fd: number): void;

  /** Listens on a SOCK_SEQPACKET Unix socket (non-blocking, mode 0600); refuses paths over 107 bytes. A socket
   * that nobody holds any more is replaced; one in use, or any other file, stays (EADDRINUSE). */
  portListen(path: string): number;
  /** Accepts one connection, or returns -1 when none is waiting. */
  portAccept(listenFd: number): number;
  /** Receives one message and its descriptors (at most 80), or null when none is waiting. A message that is
   * longer than `into` or has more descriptors is lost, its descriptors are closed: EMSGSIZE. */
  portReceive(fd: number, into: Uint8Array): ReceivedMessage | null;
  /** Sends one message of at least a byte whole, or throws (EAGAIN when the peer does not read, EPIPE when it
   * has hung up). */
  portSend(fd: number, message: Uint8Array): void;

  /** Makes a tap device without persistence; it vanishes with its last descriptor. Non-blocking. One that is
   * there already is not joined: EBUSY. */
  tapOpen(name: string, options: { readonly vnetHeader: boolean }): number;
  /** TUNSETCARRIER. */
  tapCarrier(fd: number, up: boolean): void;

  /** BLAKE3-256 of 4096-byte pages of `memory`: page pages[i] to out[32*i .. 32*i+31], for i below `count`.
   * No copies. After a RangeError for a page index past the end, `out` may be partly written. */
  blake3Pages(memory: ArrayBuffer, pages: Uint32Array, count: number, out: Uint8Array): void;
  /** BLAKE3-256 of `count` pieces of `pieceBytes` (at most 1024 each, one chunk) that lie in a row in `input`. */
  blake3Parents(input: Uint8Array, pieceBytes: number, count: number, out: Uint8Array): void;
  /** The same for some of them: piece n = which[i], at byte n * pieceBytes of `input`, to out[32*n .. 32*n+31],
   * for i below `count`. After a RangeError for a piece past the end, `out` may be partly written. */
  blake3ParentsAt(
    input: Uint8Array,
    pieceBytes: number,
    which: Uint32Array,
    count: number,
    out: Uint8Array,
  ): void;
  /** BLAKE3-256 of any bytes. */
  blake3(bytes: Uint8Array): Uint8Array;
  /** The dispatch level in use in this thread; `force` sets it from now on, for tests and benches (RangeError
   * where the CPU lacks it). */
  blake3Level(force?: 'portable' | 'sse41' | 'avx2' | 'avx512'): string;
  /** How many threads (1 to 64, 1 at first) share out the pages or pieces of one call of this thread, itself
   * included; `count` sets it from now on. The others sleep between calls. A call returns when all is hashed. */
  blake3Threads(count?: number): number;
}

const require = createRequire(import.meta.url);

/** Where this file runs from: the source tree or dist/native beside it. */
function projectFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'native', 'CMakeLists.txt'))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new Error('No native/CMakeLists.txt above the native loader: the installation is incomplete');
    folder = parent;
  }
  return folder;
}

let loaded: NativeBinding | undefined;

/** Where the addon lies once it is built. GAIA_NATIVE_BUILD names another folder (the sanitizer build, in tests). */
export function addonFile(): string {
  const build = process.env['GAIA_NATIVE_BUILD'] ?? join(projectFolder(), 'native/build/Release');
  return join(build, 'gaia_native.node');
}

/** Loads the addon once. */
export function native(): NativeBinding {
  if (loaded === undefined) {
    const file = addonFile();
    if (!existsSync(file)) throw new Error(`No native addon at ${file}: run "node cli/setup.mjs addon"`);
    loaded = require(file) as NativeBinding;
  }
  return loaded;
}
