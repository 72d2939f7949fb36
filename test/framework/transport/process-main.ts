/**
 * A process that holds one end of a transport and does what its parent tells it, one call after another. Between
 * and within calls it moves the transport, as an engine would; it can be killed or stopped at any time.
 */
import { readdirSync } from 'node:fs';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { native } from '../../../native/binding.ts';
import { toReplicaId } from '../../../vmm/core/ids.ts';
import { openTransport, type TransportSettings } from '../../../vmm/io/transport/open.ts';
import type {
  PeerCard,
  RegionReader,
  RegionWriter,
  Transport,
  TransportPeer,
} from '../../../vmm/io/transport/transport.ts';
import { fillPattern, isPattern, mixedSize, pattern } from './pattern.ts';

/** Sizes of a stream: all equal, or mixed between two bounds. */
export interface Sizes {
  readonly least: number;
  readonly most: number;
}

export interface Stream {
  readonly peer: number;
  readonly stream: number;
  readonly from: number;
  readonly count: number;
  readonly sizes: Sizes;
}

function nowUs(): number {
  return performance.now() * 1000;
}

function sizeOf(index: number, { least, most }: Sizes): number {
  return least === most ? least : mixedSize(index, least, most);
}

class TransportEnd {
  readonly #readers = new Map<number, RegionReader>();
  /** By peer: the newest, since a peer's region takes the place of its last one. */
  readonly #writers = new Map<number, RegionWriter>();
  #lastReader = 0;
  readonly #gone: number[] = [];
  #transport: Transport | undefined;
  #stopped = false;
  #echoed = 0;
  #putsForEver = false;

  get #opened(): Transport {
    if (this.#transport === undefined) throw new Error('No transport is open');
    return this.#transport;
  }

  #peer(id: number): TransportPeer {
    const peer = this.#opened.peer(toReplicaId(id));
    if (peer === undefined) throw new Error(`Replica ${id} is not connected`);
    return peer;
  }

  #reader(number: number): RegionReader {
    const reader = this.#readers.get(number);
    if (reader === undefined) throw new Error(`There is no reader ${number}`);
    return reader;
  }

  #writer(number: number): RegionWriter {
    const writer = this.#writers.get(number);
    if (writer === undefined) throw new Error(`There is no writer ${number}`);
    return writer;
  }

  progress(): void {
    const transport = this.#transport;
    if (transport === undefined || this.#stopped) return;
    transport.progress(nowUs());
    for (let gone = transport.takeGone(); gone !== undefined; gone = transport.takeGone())
      this.#gone.push(gone);
  }

  /** Moves the transport until `condition` holds; false after `limitMs`. */
  async #until(condition: () => boolean, limitMs = 20_000): Promise<boolean> {
    const endMs = performance.now() + limitMs;
    for (;;) {
      this.progress();
      if (condition()) return true;
      if (performance.now() > endMs) return false;
      await setImmediate();
    }
  }

  // Calls --------------------------------------------------------------------------------------------

  open(self: number, settings: TransportSettings): number {
    this.#stopped = false;
    this.#transport = openTransport(toReplicaId(self), settings);
    return process.pid;
  }

  invite(peer: number): PeerCard {
    return this.#opened.invite(toReplicaId(peer));
  }

  connect(peer: number, card: PeerCard): void {
    this.#opened.connect(toReplicaId(peer), card);
  }

  async sendMessages({ peer, stream, from, count, sizes }: Stream): Promise<number> {
    for (let index = from; index < from + count; index++) {
      const payload = pattern(sizeOf(index, sizes), stream, index);
      if (!(await this.#until(() => this.#peer(peer).send(1 + (index % 200), payload)))) return index - from;
    }
    return count;
  }

  /** How many messages the ring takes while nobody reads. */
  sendUntilFull(peer: number, stream: number, bytes: number): number {
    for (let index = 0; ; index++)
      if (!this.#peer(peer).send(1 + (index % 200), pattern(bytes, stream, index))) return index;
  }

  /** Reads messages of a stream; tells of the first one that is not the next. */
  async takeMessages({ peer, stream, from, count, sizes }: Stream): Promise<string> {
    for (let index = from; index < from + count; index++) {
      const id = toReplicaId(peer);
      if (!(await this.#until(() => this.#opened.peer(id)?.messages.next() === true)))
        return `message ${index} did not come`;
      const { messages } = this.#peer(peer);
      const payload = messages.copy();
      if (messages.kind !== 1 + (index % 200)) return `message ${index} has kind ${messages.kind}`;
      if (payload.length !== sizeOf(index, sizes)) return `message ${index} has ${payload.length} bytes`;
      if (!isPattern(payload, stream, index)) return `message ${index} has other bytes`;
      messages.consume();
    }
    return 'all';
  }

  /** Whether a message waits now, after everything that is under way has had `quietMs` to arrive. */
  async messageWaits(peer: number, quietMs: number): Promise<boolean> {
    return await this.#until(() => this.#opened.peer(toReplicaId(peer))?.messages.next() === true, quietMs);
  }

  openRegion(peer: number): { reader: number; key: string } {
    const reader = this.#peer(peer).openRegion();
    this.#readers.set(++this.#lastReader, reader);
    return { reader: this.#lastReader, key: Buffer.from(reader.key).toString('hex') };
  }

  attachRegion(peer: number, key: string): number {
    this.#writers.set(peer, this.#peer(peer).attachRegion(Buffer.from(key, 'hex')));
    return peer;
  }

  /** Its memory is free from here on, once the collector has come by. */
  closeReader(reader: number): void {
    this.#reader(reader).close();
    this.#readers.delete(reader);
  }

  /** Where a record may be written, as soon as there is room; -1: there was none in time. */
  async #roomFor(writer: RegionWriter, bytes: number): Promise<number> {
    const at = writer.records.reserve(bytes);
    if (at !== -1) return at;
    writer.flush();
    await this.#until(() => writer.failed || writer.records.reserve(bytes) !== -1);
    return writer.records.reserve(bytes);
  }

  /** Puts records, several at a flush; how many had room in time. */
  async putRecords(number: number, { stream, from, count, sizes }: Stream): Promise<number> {
    const writer = this.#writer(number);
    for (let index = from; index < from + count; index++) {
      const bytes = sizeOf(index, sizes);
      const at = await this.#roomFor(writer, bytes);
      if (at === -1) return index - from;
      fillPattern(writer.records.data.subarray(at, at + bytes), stream, index);
      writer.records.commit(1, bytes);
      if (index % 4 === 3) {
        writer.flush();
        this.progress();
      }
    }
    writer.flush();
    return count;
  }

  /** Puts records and heartbeats for ever, without a look at what the reader says, until the process ends. */
  putForEver(number: number, stream: Stream): void {
    const writer = this.#writer(number);
    this.#putsForEver = true;
    const round = async (): Promise<void> => {
      for (let index = stream.from; ; index++) {
        const bytes = sizeOf(index, stream.sizes);
        const at = writer.records.reserve(bytes);
        if (at !== -1) {
          fillPattern(writer.records.data.subarray(at, at + bytes), stream.stream, index);
          writer.records.commit(1, bytes);
          writer.flush();
        } else index--;
        writer.putHeartbeat(pattern(32, stream.stream, 1));
        await setImmediate();
      }
    };
    void round();
  }

  async takeRecords(number: number, { stream, from, count, sizes }: Stream): Promise<string> {
    const reader = this.#reader(number);
    const { records } = reader;
    for (let index = from; index < from + count; index++) {
      if (!(await this.#until(() => records.next()))) return `record ${index} did not come`;
      const copy = records.copy();
      if (copy.length !== sizeOf(index, sizes)) return `record ${index} has ${copy.length} bytes`;
      if (!isPattern(copy, stream, index)) return `record ${index} has other bytes`;
      records.consume();
    }
    return 'all';
  }

  /** Takes whole records until none has come for `quietMs`: how many of the stream there were, or what was wrong. */
  async takeWhatComes(
    number: number,
    { stream, from, sizes }: Stream,
    quietMs: number,
  ): Promise<number | string> {
    const { records } = this.#reader(number);
    for (let index = from; ; index++) {
      if (!(await this.#until(() => records.next(), quietMs))) return index - from;
      const copy = records.copy();
      if (copy.length !== sizeOf(index, sizes) || !isPattern(copy, stream, index))
        return `record ${index} has other bytes`;
      records.consume();
    }
  }

  async recordWaits(number: number, quietMs: number): Promise<boolean> {
    const { records } = this.#reader(number);
    return await this.#until(() => records.hasEntry, quietMs);
  }

  heartbeatIs(number: number, stream: number, index: number): Promise<boolean> {
    const { heartbeat } = this.#reader(number);
    return this.#until(() => isPattern(heartbeat.subarray(0, 32), stream, index));
  }

  /** True while nothing has ever been written into the heartbeat of this region. */
  heartbeatIsBlank(number: number): boolean {
    return this.#reader(number).heartbeat.every((byte) => byte === 0);
  }

  putHeartbeats(number: number, stream: number, from: number, count: number): void {
    for (let index = from; index < from + count; index++) {
      this.#writer(number).putHeartbeat(pattern(32, stream, index));
      this.progress();
    }
  }

  putAcks(peer: number, stream: number, from: number, count: number): void {
    for (let index = from; index < from + count; index++) {
      this.#peer(peer).putAck(pattern(48, stream, index));
      this.progress();
    }
  }

  ackIs(peer: number, stream: number, index: number): Promise<boolean> {
    const { ack } = this.#peer(peer);
    return this.#until(() => isPattern(ack.subarray(0, 48), stream, index));
  }

  /** Waits as an engine does, blocked in one call. True: woken because something had come. */
  async waitForWake(peer: number, what: 'message' | 'ack' | 'nothing', limitMs: number): Promise<number> {
    const transport = this.#opened;
    const startMs = performance.now();
    const came = () =>
      (what === 'message' && this.#peer(peer).messages.next()) ||
      (what === 'ack' && this.#peer(peer).ack.some((byte) => byte !== 0));
    process.send?.({ waiting: true });
    for (let leftMs = limitMs; leftMs > 0; leftMs = limitMs - (performance.now() - startMs)) {
      transport.prepareWait();
      transport.progress(nowUs());
      if (came()) return performance.now() - startMs;
      const fds = Int32Array.from(transport.waitFds);
      const ready = new Uint8Array(fds.length);
      if (transport.mayWait) native().waitReadable(fds, ready, leftMs * 1000);
      transport.endWait((fd) => ready[fds.indexOf(fd)] === 1);
      transport.progress(nowUs());
      if (came()) return performance.now() - startMs;
    }
    await setImmediate();
    return Infinity;
  }

  /** Milliseconds until the peer is reported as gone; -1: it was not. */
  async waitForGone(peer: number, limitMs: number): Promise<number> {
    const startMs = performance.now();
    const gone = await this.#until(() => {
      this.#lookAtEnds();
      return this.#gone.includes(peer);
    }, limitMs);
    if (!gone) return -1;
    this.#gone.splice(this.#gone.indexOf(peer), 1);
    return performance.now() - startMs;
  }

  /** Deaths are told by descriptors where the transport has any. */
  #lookAtEnds(): void {
    const transport = this.#opened;
    const fds = Int32Array.from(transport.waitFds);
    const ready = new Uint8Array(fds.length);
    native().waitReadable(fds, ready, 0);
    transport.endWait((fd) => ready[fds.indexOf(fd)] === 1);
  }

  /** Round trips: a record and its ack, both sides spinning. This side leads; microseconds, sorted. */
  async roundTrips(peer: number, writerNumber: number, bytes: number, count: number): Promise<number[]> {
    const writer = this.#writer(writerNumber);
    const { ack } = this.#peer(peer);
    const ackWords = new Uint32Array(ack.buffer, ack.byteOffset, 2);
    const times = new Float64Array(count);
    const transport = this.#opened;
    const last = Atomics.load(ackWords, 0);
    for (let index = 1; index <= count; index++) {
      const startUs = nowUs();
      const at = writer.records.reserve(bytes);
      if (at === -1) throw new Error('No room for a record');
      writer.records.data[at] = index & 0xff;
      writer.records.commit(1, bytes);
      writer.flush();
      while (Atomics.load(ackWords, 0) !== last + index) transport.progress(nowUs());
      times[index - 1] = nowUs() - startUs;
    }
    await setImmediate();
    return [...times.sort()];
  }

  /** The other side of `roundTrips`: acks each record with 8 bytes. */
  async echo(peer: number, readerNumber: number, count: number): Promise<void> {
    const { records } = this.#reader(readerNumber);
    const transport = this.#opened;
    const ack = new Uint8Array(8);
    const words = new Uint32Array(ack.buffer);
    const to = this.#peer(peer);
    for (let index = 1; index <= count; index++) {
      while (!records.next()) transport.progress(nowUs());
      records.consume();
      this.#echoed++;
      words[0] = this.#echoed;
      to.putAck(ack);
    }
    await this.#until(() => false, 200);
  }

  openDescriptors(): number {
    return readdirSync('/proc/self/fd').length;
  }

  close(): void {
    this.#stopped = true;
    this.#opened.close();
  }

  /** As new. False: something here never ends. */
  reset(): boolean {
    if (this.#putsForEver) return false;
    if (this.#transport !== undefined && !this.#stopped) this.close();
    this.#transport = undefined;
    this.#readers.clear();
    this.#writers.clear();
    this.#gone.length = 0;
    this.#echoed = 0;
    return true;
  }
}

interface Call {
  readonly call: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

const end = new TransportEnd();

process.on('message', ({ call, method, args }: Call) => {
  const methods = end as unknown as Record<string, (...args: readonly unknown[]) => unknown>;
  Promise.resolve()
    .then(() => methods[method]?.(...args))
    .then(
      (result) => process.send?.({ call, result }),
      (error: unknown) => {
        const { message, code } = error as NodeJS.ErrnoException;
        process.send?.({ call, failure: { message, code } });
      },
    );
});
process.on('disconnect', () => process.exit(0));

for (;;) {
  end.progress();
  await setTimeout(2);
}
