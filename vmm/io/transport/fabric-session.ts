/**
 * One session between this process and one process of a peer, over a fabric: a ring of messages each way, the
 * region that is open for the peer, the peer's region that is filled, and the state block each way (fabric-state.ts).
 *
 *   this process                                                     the peer
 *     copy of the ring  -- put of what was committed -------------->  ring of messages, or of records
 *     state block       -- put: "up to here" ---------------------->  state block, looked at in `progress`
 *
 * Guarantees as transport.ts. They rest on this: puts land in order while a connection lasts, and when the provider
 * silently makes another, what was lost shows. A message carries a checksum over itself and its number; records
 * carry their own; a state block is put again and again. A gap ends the session, and a new one begins from nothing.
 */
import { native } from '../../../native/binding.ts';
import { tryAgain, type FabricEndpoint } from '../../../native/fabric.ts';
import type { ReplicaId } from '../../core/ids.ts';
import { RingConsumer, RingHarmedError } from '../ring.ts';
import { decodeRegionKey, FabricRegionReader, FabricRegionWriter } from './fabric-region.ts';
import { FabricRing } from './fabric-ring.ts';
import { StateBlock, stateBytes, StateReader, stateWord } from './fabric-state.ts';
import { TransportError, type MessageReader, type RegionReader, type TransportPeer } from './transport.ts';

/** The state block in a session's memory, then the ring of messages. */
const ringOffset = 4096;
const messageRingBytes = 1 << 20;
export const sessionBytes = ringOffset + messageRingBytes;
/** Copies of the state block that puts may be reading: the next put must not change them. */
const stateSlots = 8;
const stateSlotBytes = 256;
/** Tokens of one session: its slots, then its data. */
export const tokensPerSession = 16;
const dataToken = stateSlots;
const checksumBytes = 4;
/** Credit that is worth a put of its own. */
const creditBytesMin = messageRingBytes / 8;
/** Regions that were closed and not yet left by their writer. */
const retiredMax = 4;

export interface FabricTimes {
  /** A state block that did not change is put again after this time. */
  readonly refreshUs: number;
  /** A peer that was not heard, or took no put, for this long is gone. */
  readonly silenceUs: number;
}

export interface SessionFace {
  readonly endpoint: FabricEndpoint;
  readonly times: FabricTimes;
  /** A put wakes a waiting peer by itself; else its doorbell is rung. */
  readonly putsWake: boolean;
  failed(session: FabricSession): void;
}

/** How the peer of a session is reached. */
interface PeerEnd {
  /** The peer's own number for this session. */
  readonly session: number;
  readonly name: Uint8Array;
  readonly memoryKey: Uint8Array;
}

export class FabricSession implements TransportPeer, MessageReader {
  readonly id: ReplicaId;
  readonly messages: MessageReader = this;
  readonly ack: Uint8Array;
  readonly #face: SessionFace;
  readonly #endpoint: FabricEndpoint;
  /** This process's number for the session; its tokens begin at `tokensPerSession` times it. */
  readonly #session: number;
  readonly #landing: number;
  readonly #copies: number;
  readonly #copyBytes: Uint8Array;
  readonly #peer: number;
  readonly #remote: number;
  readonly #peerSession: number;
  readonly #in: StateReader;
  readonly #out = new StateBlock();
  readonly #outbox: FabricRing;
  readonly #inbox: RingConsumer;
  readonly #slotBusy = new Uint8Array(stateSlots);
  readonly #retired: FabricRegionReader[] = [];
  readonly #trailer = new Uint32Array(1);
  readonly #trailerBytes = new Uint8Array(this.#trailer.buffer);
  #open: FabricRegionReader | undefined;
  #filled: FabricRegionWriter | undefined;
  #regionSerial = 0;
  #sentMessages = 0;
  #readMessages = 0;
  #payload: Uint8Array | undefined;
  #stateDue = true;
  #ringDue = false;
  #postedCredit = 0;
  #postedOpenCredit = 0;
  #postedUs = -Infinity;
  #heardUs: number | undefined;
  /** Since when something has waited to be put and nothing was taken; Infinity: nothing waits. */
  #backlogSinceUs = Infinity;
  #lookedUs: number | undefined;
  #failure: string | undefined;

  /** `session` and `landing`: as the invitation of this peer told them. */
  constructor(id: ReplicaId, face: SessionFace, session: number, landing: number, peer: PeerEnd) {
    const { endpoint } = face;
    this.id = id;
    this.#face = face;
    this.#endpoint = endpoint;
    this.#session = session;
    this.#landing = landing;
    this.#peerSession = peer.session;
    const landed = endpoint.memoryBuffer(landing);
    this.#in = new StateReader(new Uint8Array(landed, 0, stateBytes));
    this.ack = this.#in.state.ack;
    this.#inbox = new RingConsumer(
      new Uint8Array(landed, ringOffset, messageRingBytes),
      this.#in.state.words,
      stateWord.messageHead,
      this.#out.words,
      stateWord.messageCredit,
    );
    // First what the peer's card may have wrong.
    this.#peer = endpoint.addPeer(peer.name);
    try {
      this.#remote = endpoint.addRemote(this.#peer, peer.memoryKey);
      this.#copies = endpoint.addMemory(sessionBytes);
    } catch (error) {
      endpoint.removePeer(this.#peer);
      throw error;
    }
    this.#copyBytes = new Uint8Array(endpoint.memoryBuffer(this.#copies));
    this.#outbox = new FabricRing(
      endpoint,
      { memory: this.#copies, offset: ringOffset, bytes: messageRingBytes },
      { remote: this.#remote, offset: ringOffset },
      this.#token(dataToken),
      () => this.#in.state.word(stateWord.messageCredit),
    );
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /** Why the session ended, for people. */
  get failure(): string {
    return this.#failure ?? 'it lasts';
  }

  #token(slot: number): number {
    return (this.#session % 0x800_0000) * tokensPerSession + slot;
  }

  fail(why: string): void {
    if (this.#failure !== undefined) return;
    this.#failure = why;
    this.#face.failed(this);
  }

  // Messages -----------------------------------------------------------------------------------------

  send(kind: number, payload: Uint8Array): boolean {
    if (this.failed) return false;
    const { producer } = this.#outbox;
    const at = producer.reserve(payload.length + checksumBytes);
    if (at === -1) return false;
    producer.data.set(payload, at);
    this.#trailer[0] = messageChecksum(payload, kind, ++this.#sentMessages);
    producer.data.set(this.#trailerBytes, at + payload.length);
    producer.commit(kind, payload.length + checksumBytes);
    this.flush();
    return true;
  }

  /** Copies first and checks the copy: what lies in the ring may change at any time. */
  next(): boolean {
    if (this.#payload !== undefined) return true;
    if (this.failed) return false;
    try {
      if (!this.#inbox.next()) return false;
    } catch (error) {
      if (!(error instanceof RingHarmedError)) throw error;
      this.fail(error.message);
      return false;
    }
    const entry = this.#inbox.copy();
    const payload = entry.subarray(0, -checksumBytes);
    this.#trailerBytes.set(entry.subarray(-checksumBytes));
    const number = this.#readMessages + 1;
    if (entry.length < checksumBytes || this.#trailer[0] !== messageChecksum(payload, this.kind, number)) {
      this.fail(`message ${number} did not arrive whole`);
      return false;
    }
    this.#payload = payload;
    return true;
  }

  get kind(): number {
    return this.#inbox.kind;
  }

  copy(): Uint8Array {
    return this.#payload ?? new Uint8Array(0);
  }

  consume(): void {
    this.#payload = undefined;
    this.#readMessages++;
    this.#inbox.consume();
  }

  // Signals and regions ------------------------------------------------------------------------------

  putAck(block: Uint8Array): void {
    this.#out.ack.set(block);
    this.#stateDue = true;
    this.flush();
  }

  putHeartbeat(block: Uint8Array): void {
    this.#out.heartbeat.set(block);
    this.#stateDue = true;
    this.flush();
  }

  openRegion(): RegionReader {
    this.#open?.close();
    const { words } = this.#out;
    const serial = ++this.#regionSerial;
    words[stateWord.openSerial] = serial;
    words[stateWord.openCredit] = 0;
    const identity = { session: this.#session, serial };
    this.#open = new FabricRegionReader(this.#endpoint, this, identity, words, stateWord.openCredit);
    this.#stateDue = true;
    return this.#open;
  }

  regionClosed(region: FabricRegionReader): void {
    if (this.#open === region) {
      this.#open = undefined;
      this.#out.words[stateWord.openSerial] = 0;
      this.#stateDue = true;
    }
    this.#retired.push(region);
    if (this.failed || this.#retired.length > retiredMax) this.#release(this.#retired.shift());
  }

  #release(region: FabricRegionReader | undefined): void {
    if (region !== undefined) this.#endpoint.removeMemory(region.memory);
  }

  attachRegion(bytes: Uint8Array): FabricRegionWriter {
    const key = decodeRegionKey(bytes);
    if (key?.session !== this.#peerSession || this.failed)
      throw new TransportError(
        'GAIA_REGION_KEY',
        `The key that replica ${this.id} gave for its region is not one of this session`,
      );
    this.#filled?.close();
    const { state } = this.#in;
    const { serial } = key;
    const credit = () => (state.word(stateWord.openSerial) === serial ? state.word(stateWord.openCredit) : 0);
    const token = this.#token(dataToken);
    this.#filled = new FabricRegionWriter(this.#endpoint, this, this.#peer, key, token, credit);
    this.#out.heartbeat.fill(0);
    this.#stateDue = true;
    return this.#filled;
  }

  regionLeft(region: FabricRegionWriter): void {
    if (this.#filled === region) this.#filled = undefined;
    const { words } = this.#out;
    words[stateWord.leftSerial] = Math.max(this.#out.word(stateWord.leftSerial), region.serial);
    this.#endpoint.removeRemote(region.remote);
    this.#endpoint.removeMemory(region.memory);
    this.#stateDue = true;
  }

  // Putting ------------------------------------------------------------------------------------------

  /** Puts what is due as far as the fabric takes it now; `progress` goes on with the rest. */
  flush(): void {
    if (this.failed) return;
    const posted = this.#outbox.posted;
    const filled = this.#filled;
    const filledPosted = filled?.ring.posted;
    let status = this.#outbox.post();
    if (status === 0 && filled !== undefined) status = filled.ring.post();
    if (this.#outbox.posted !== posted || filled?.ring.posted !== filledPosted) {
      this.#stateDue = true;
      this.#backlogSinceUs = Infinity;
    }
    if ((status === 0 || status === tryAgain) && this.#stateDue) status = this.#postState();
    if (status === 0 && this.#ringDue) status = this.#ring();
    if (status !== 0 && status !== tryAgain) this.fail(`a put failed: ${errorText(status)}`);
  }

  #postState(): number {
    const slot = this.#slotBusy.indexOf(0);
    if (slot === -1) return tryAgain;
    const { words } = this.#out;
    words[stateWord.messageHead] = this.#outbox.posted;
    words[stateWord.filledSerial] = this.#filled?.serial ?? 0;
    words[stateWord.filledHead] = this.#filled?.ring.posted ?? 0;
    this.#out.seal();
    const at = slot * stateSlotBytes;
    this.#copyBytes.set(this.#out.bytes, at);
    const status = this.#endpoint.put(this.#remote, 0, this.#copies, at, stateBytes, this.#token(slot));
    if (status !== 0) return status;
    this.#slotBusy[slot] = 1;
    if (!this.#dataWaits) this.#backlogSinceUs = Infinity;
    this.#stateDue = false;
    this.#postedCredit = this.#out.word(stateWord.messageCredit);
    this.#postedOpenCredit = this.#out.word(stateWord.openCredit);
    this.#postedUs = this.#lookedUs ?? -Infinity;
    this.#ringDue = !this.#face.putsWake;
    return 0;
  }

  #ring(): number {
    const status = this.#endpoint.ring(this.#peer);
    if (status === 0) this.#ringDue = false;
    return status;
  }

  /** A put of this session has finished. */
  finished(slot: number, error: number): void {
    if (slot < stateSlots) this.#slotBusy[slot] = 0;
    if (error !== 0) this.fail(`a put failed: ${errorText(error)}`);
  }

  // Progress -----------------------------------------------------------------------------------------

  /** After the completions of this pass. */
  progress(nowUs: number): void {
    if (this.failed) return;
    this.#forgiveOwnSleep(nowUs);
    if (this.#in.look()) this.#takeState(nowUs);
    const credit = (this.#out.word(stateWord.messageCredit) - this.#postedCredit) >>> 0;
    const openCredit = (this.#out.word(stateWord.openCredit) - this.#postedOpenCredit) >>> 0;
    if (
      Math.max(credit, openCredit) >= creditBytesMin ||
      nowUs - this.#postedUs >= this.#face.times.refreshUs
    )
      this.#stateDue = true;
    if (this.#hasBacklog) this.flush();
    this.#watchSilence(nowUs);
  }

  /** Tells the peer now what could wait while this replica was busy. */
  beforeWait(): void {
    if (
      this.#out.word(stateWord.messageCredit) !== this.#postedCredit ||
      this.#out.word(stateWord.openCredit) !== this.#postedOpenCredit
    )
      this.#stateDue = true;
    if (this.#hasBacklog) this.flush();
  }

  get #hasBacklog(): boolean {
    return this.#stateDue || this.#ringDue || this.#dataWaits;
  }

  get #dataWaits(): boolean {
    return this.#outbox.hasBacklog || this.#filled?.ring.hasBacklog === true;
  }

  #takeState(nowUs: number): void {
    this.#heardUs = nowUs;
    const { state } = this.#in;
    const open = this.#open;
    if (open?.serial === state.word(stateWord.filledSerial))
      open.advance(state.word(stateWord.filledHead), state.heartbeat);
    const left = state.word(stateWord.leftSerial);
    while ((this.#retired[0]?.serial ?? Infinity) <= left) this.#release(this.#retired.shift());
  }

  /** A process that was stopped itself has not listened: that silence is its own. */
  #forgiveOwnSleep(nowUs: number): void {
    const sleptUs = nowUs - (this.#lookedUs ?? nowUs);
    this.#lookedUs = nowUs;
    this.#heardUs ??= nowUs;
    if (sleptUs < this.#face.times.silenceUs / 4) return;
    this.#heardUs += sleptUs;
    if (this.#backlogSinceUs !== Infinity) this.#backlogSinceUs += sleptUs;
  }

  #watchSilence(nowUs: number): void {
    const { silenceUs } = this.#face.times;
    if (!this.#hasBacklog) this.#backlogSinceUs = Infinity;
    else if (this.#backlogSinceUs === Infinity) this.#backlogSinceUs = nowUs;
    const before = this.#failure;
    if (nowUs - (this.#heardUs ?? nowUs) > silenceUs)
      this.fail(`nothing was heard for ${Math.round(silenceUs / 1000)} ms`);
    else if (nowUs - this.#backlogSinceUs > silenceUs)
      this.fail(`no put was taken for ${Math.round(silenceUs / 1000)} ms`);
    // The next session with this peer must not wait for what TCP still tries to bring across a link that was down.
    if (this.#failure !== before) this.#endpoint.disconnectPeer(this.#peer);
  }

  /** Nothing of this session is read or written any more. */
  close(): void {
    this.#failure ??= 'it was closed';
    this.#filled?.close();
    this.#open?.close();
    for (const region of this.#retired.splice(0)) this.#release(region);
    this.#endpoint.removePeer(this.#peer);
    this.#endpoint.removeMemory(this.#landing);
    this.#endpoint.removeMemory(this.#copies);
  }
}

/** Over the payload, its kind and its number among the messages of the session. */
function messageChecksum(payload: Uint8Array, kind: number, number: number): number {
  return native().crc32c(payload, (Math.imul(number, 0x9e37_79b1) ^ kind) >>> 0);
}

function errorText(error: number): string {
  return `error ${error} of the provider`;
}
