/**
 * Runs one guest by the committed log: every round's record becomes frames in the deliver ring and a run as far as the
 * record says. Guarantees: records reach the guest in order, each once; output leaves only while this replica serves;
 * a backup forgets output that the leader has released.
 */
import { native } from '../../native/binding.ts';
import { crc32cWith } from '../core/falcon/crc32c.ts';
import { recordCount, recordType, RECORD_HEADER_BYTES } from '../core/falcon/record.ts';
import type { FalconReplica } from '../core/falcon/replica.ts';
import type { LogIndex } from '../core/ids.ts';
import { RecentFrames } from '../core/rounds/recent-frames.ts';
import {
  frameBytesAt,
  frameBytesInRound,
  frameOffsetAt,
  ROUND_HEADER_BYTES,
  RoundRecordType,
  roundExtent,
  roundReleasedIndex,
  type RoundExtent,
} from '../core/rounds/round-record.ts';
import type { RoundRunner } from '../core/rounds/round-parts.ts';
import { entryKind, stopReason } from '../io/qemu/layout.ts';
import type { GuestPort, Stopped } from '../io/qemu/port.ts';
import { monotonicNs } from '../io/monotonic-clock.ts';
import type { Tap } from '../io/tap.ts';

/** A round is over in milliseconds; QEMU that takes this long for one does not come back. */
const roundHangsUs = 3_000_000;

/** What a guest does to itself; in lockstep at the same instant on both sides. */
const guestEnds: ReadonlySet<number> = new Set([stopReason.shutdown, stopReason.reset, stopReason.panic]);
/** A free-running guest ends its rounds by these, too. */
const freeEnds: ReadonlySet<number> = new Set([
  stopReason.deadline,
  stopReason.idle,
  stopReason.pause,
  stopReason.holdFull,
]);
/** QEMU is told of output that nobody needs any more when there is so much of it: each message wakes it. */
const dropBytesMin = 1 << 20;
const toEnd: RoundExtent = { untilNs: 0, realUsMax: 0, untilQuiet: false };

interface HeldRound {
  readonly index: LogIndex;
  readonly holdHead: number;
}

export class GuestExecutor implements RoundRunner {
  readonly port: GuestPort;
  readonly #falcon: FalconReplica;
  /** Every round ends at its virtual instant, and nowhere else. */
  readonly #exact: boolean;
  readonly #tap: Tap;
  /** Invariant: the guest's state is that after exactly the records up to here. */
  #appliedIndex = 0 as LogIndex;
  #running = 0 as LogIndex;
  #runningSinceUs = 0;
  /** When it last was seen standing with nothing to execute. */
  #levelUs = Infinity;
  #extent = toEnd;
  /** Output of the running round leaves as the guest sends it. */
  #releases = false;
  #ended: number | undefined;
  #serving = false;
  /** QEMU tells at once what comes from the tap. */
  #heeds = true;
  /** What comes from the tap is kept, although this replica does not serve. */
  #listens = false;
  /** Seen and in no record, by whoever does not serve. */
  readonly #recent = new RecentFrames(crc32cWith(native().crc32cAt));
  /** The same, to be proposed now that this replica serves. */
  #unagreed: readonly Uint8Array[] = [];
  /** The agent opens the tap with its carrier up. */
  #carrier = true;
  #virtualNs = 0;
  #deliverTail = 0;
  #idle = false;
  #framesDelivered = 0;
  /** Of the running or last round: it came with frames; the guest sent something. */
  #hadInput = false;
  #hadOutput = false;
  #holdHead = 0;
  #rounds = 0;
  /** The guest has ended before the running round began, which is over with that. */
  #passedOver = false;
  /** Rounds whose output is still held, oldest first. */
  readonly #held: HeldRound[] = [];
  /** Up to here the leader has released what is held; QEMU does not know it yet. Undefined: it does. */
  #obsoleteTo: number | undefined;
  #droppedTo = 0;
  /** So many frames wait once each that has left is answered; 0: none has left. */
  #awaitedFrames = 0;
  /** What was released up to here has not left: the lease had ended, or the host took no more. Undefined: all has. */
  #stuckTo: number | undefined;
  #leaseEndUs = -Infinity;

  constructor(port: GuestPort, falcon: FalconReplica, tap: Tap, exact: boolean) {
    this.#exact = exact;
    this.port = port;
    this.#falcon = falcon;
    this.#tap = tap;
    this.port.setLease(0n);
  }

  get appliedIndex(): LogIndex {
    return this.#appliedIndex;
  }

  /** The guest stands between two rounds. */
  get stands(): boolean {
    return this.#running === 0;
  }

  /** Of a guest that serves: the running round does not come to its end, or what is committed is not executed. */
  hangs(nowUs: number): boolean {
    if (!this.stands) return nowUs - this.#runningSinceUs > roundHangsUs;
    if (!this.#serving || this.nextCommitted() === 0) this.#levelUs = nowUs;
    return nowUs - this.#levelUs > roundHangsUs;
  }

  /** Virtual instant at which the running round ends, ns. */
  get runningUntilNs(): number {
    return this.#extent.untilNs;
  }

  /** The running round has no input to finish: it ends as soon as there is anything else to do. */
  get runsIdly(): boolean {
    return !this.stands && !this.#exact && !this.#extent.untilQuiet;
  }

  /** The guest has powered itself off, reset itself or crashed: the stop reason, until a record says what becomes of it. */
  get ended(): number | undefined {
    return this.#ended;
  }

  get virtualNs(): number {
    return this.#virtualNs;
  }

  /** Rounds that have ended. */
  get rounds(): number {
    return this.#rounds;
  }

  /** Nothing came to the guest in the last round, it sent nothing, and it waits. */
  get wasSilent(): boolean {
    return this.#idle && !this.#hadInput && !this.#hadOutput;
  }

  /** First byte of the deliver ring that the guest has not taken. */
  get deliverTail(): number {
    return this.#deliverTail;
  }

  /** At the end of the last round every vCPU was halted. */
  get idle(): boolean {
    return this.#idle;
  }

  get serving(): boolean {
    return this.#serving;
  }

  /** Frames given to the guest since the start. */
  get framesDelivered(): number {
    return this.#framesDelivered;
  }

  /** The guest was given the state after the record `index`. */
  stateLoaded(index: LogIndex, virtualNs: number): void {
    this.#held.length = 0;
    this.#ended = undefined;
    this.#virtualNs = virtualNs;
    this.adopted(index);
  }

  /** The devices are another guest's as it stands; what was held here is another history's, and gone. */
  deviceStateLoaded(virtualNs: number, deliverTail: number): void {
    this.#forget(this.#held.at(-1)?.holdHead);
    this.#held.length = 0;
    this.#ended = undefined;
    this.#virtualNs = virtualNs;
    this.#deliverTail = deliverTail;
  }

  adopted(index: LogIndex): void {
    this.#appliedIndex = index;
    this.#setCarrier(true); // A deposed leader took it down; now it may have to serve again.
  }

  /** Frames from clients come in, output goes out: what the guest still holds was never contradicted. */
  beginServing(): void {
    this.#serving = true;
    this.#setCarrier(true);
    this.#tap.announce();
    this.port.divertIngress(true);
    this.#hear();
    this.#listens = false;
    this.#unagreed = this.#recent.take(this.#falcon.state.nowUs);
    this.renewLease();
    this.releaseHeld();
  }

  /** While this replica serves: output may leave for as long as the leadership is sure, looked after or not. */
  renewLease(): void {
    if (!this.#serving) return;
    const { leaseEndUs } = this.#falcon;
    if (leaseEndUs === this.#leaseEndUs) return;
    this.#leaseEndUs = leaseEndUs;
    this.port.setLease(leaseEndUs === Infinity ? undefined : monotonicNs(leaseEndUs));
    if (this.#stuckTo !== undefined) this.#release(this.#stuckTo);
  }

  /** Input is there for a round to take. */
  get inputWaits(): boolean {
    return this.port.ingress.hasEntry || this.#unagreed.length > 0;
  }

  /** How much of it there is, as far as it matters: no more than `most`. */
  waitingFrames(most: number): number {
    return this.#unagreed.length + this.port.ingress.count(most);
  }

  /** Whether what comes from clients now would be proposed. True when some has come while it would not have been. */
  heedInput(heeds: boolean): boolean {
    if (this.#heeds === heeds) return false;
    this.#heeds = heeds;
    this.port.ingressQuiet = !heeds;
    return heeds && this.inputWaits;
  }

  /** How many of it this replica heard before it served, in no record yet. */
  get unagreedFrames(): number {
    return this.#unagreed.length;
  }

  /** The same frames, once. */
  takeUnagreed(): readonly Uint8Array[] {
    const frames = this.#unagreed;
    this.#unagreed = [];
    return frames;
  }

  releaseHeld(): void {
    this.#dropObsolete();
    const newest = this.#held.at(-1);
    if (newest !== undefined) this.#release(newest.holdHead);
    this.#held.length = 0;
  }

  #release(holdHead: number): void {
    const waiting = this.#awaitedFrames === 0 ? this.waitingFrames(Infinity) : 0;
    this.#stuckTo = this.port.release(holdHead) === holdHead ? undefined : holdHead;
    const { releasedFrames } = this.port;
    if (releasedFrames > 0) this.#awaitedFrames += waiting + releasedFrames;
  }

  /** How many frames wait once each that has left since this was asked last is answered; 0: none has left. */
  takeAwaitedFrames(): number {
    const frames = this.#awaitedFrames;
    this.#awaitedFrames = 0;
    return frames;
  }

  /** No output from now on, and no input from clients. */
  endServing(): void {
    this.#serving = false;
    this.#unagreed = [];
    this.#stuckTo = undefined;
    this.#leaseEndUs = -Infinity;
    this.port.setLease(0n);
    this.port.divertIngress(false);
    this.#setCarrier(false);
  }

  #setCarrier(up: boolean): void {
    this.#carrier = up;
    this.#tap.setCarrier(up);
  }

  /**
   * Executes on, without serving: after a handover its port is up again, as a backup's is, and it hears what clients
   * send, in case it has to serve next.
   */
  standBy(): void {
    if (this.#serving) return;
    if (!this.#carrier) this.#setCarrier(true);
    if (!this.#listens) {
      this.#listens = true;
      this.port.divertIngress(true);
    }
    this.#hear();
  }

  /** Nobody is served by this guest next: what comes is discarded. */
  standAside(): void {
    if (!this.#listens) return;
    this.#listens = false;
    this.port.divertIngress(false);
    this.#hear();
    this.#recent.clear();
  }

  #hear(): void {
    const { ingress } = this.port;
    while (ingress.next()) {
      this.#recent.saw(ingress.data, ingress.offset, ingress.length, this.#falcon.state.nowUs);
      ingress.consume();
    }
  }

  /** Ends the running round now. */
  cutShort(): void {
    this.port.stop();
  }

  /** Takes the end of the running round. True when there was one. */
  takeEnd(): boolean {
    if (this.#running === 0) return false;
    if (this.#passedOver) {
      this.#passedOver = false;
      this.#endRound();
      return true;
    }
    const stopped = this.port.takeStopped();
    if (stopped === undefined) return false;
    this.#roundEnded(stopped);
    return true;
  }

  #roundEnded(stopped: Stopped): void {
    const { reason } = stopped;
    if (this.#exact && reason === stopReason.holdFull) {
      this.#makeRoom(stopped.holdHead);
      this.#run(this.#running);
      return;
    }
    if (guestEnds.has(reason)) this.#ended = reason;
    else if (this.#exact ? reason !== stopReason.deadline : !freeEnds.has(reason)) {
      // A disk or an operator of this host, but not the guest: it cannot be at the same record as the other one.
      this.port.quit();
      return;
    }
    this.#virtualNs = stopped.virtualNs;
    this.#deliverTail = stopped.deliverTail;
    this.#idle = stopped.idle;
    this.#hadOutput = stopped.holdHead !== this.#holdHead;
    this.#holdHead = stopped.holdHead;
    if (!this.#releases) this.#held.push({ index: this.#running, holdHead: stopped.holdHead });
    this.#endRound();
  }

  #endRound(): void {
    this.#rounds++;
    this.#appliedIndex = this.#running;
    this.#running = 0 as LogIndex;
  }

  /** The next committed record, if the guest stands: its index, or 0. */
  nextCommitted(): LogIndex {
    const next = (this.#appliedIndex + 1) as LogIndex;
    return this.stands && next <= this.#falcon.commitIndex ? next : (0 as LogIndex);
  }

  /**
   * Begins the round of the record at `index`, or does what another record says. A round that was agreed on
   * before anyone knew that the guest ends is passed over, on both sides alike, and its frames are lost as on a wire.
   */
  execute(index: LogIndex, release: boolean): void {
    const { log } = this.#falcon;
    const at = log.offsetAt(index);
    const type = recordType(log.memory, at);
    if (type === RoundRecordType.guestReset) this.#reset();
    if (type !== RoundRecordType.round) {
      this.passOver(index);
      return;
    }
    if (this.#ended !== undefined) {
      this.#running = index;
      this.#passedOver = true;
      return;
    }
    const payload = at + RECORD_HEADER_BYTES;
    this.#dropReleased(roundReleasedIndex(log.memory, payload));
    this.#hadInput = recordCount(log.memory, at) > 0;
    this.#deliver(payload + ROUND_HEADER_BYTES, recordCount(log.memory, at));
    this.#running = index;
    this.#runningSinceUs = this.#falcon.state.nowUs;
    this.#levelUs = this.#runningSinceUs;
    this.#extent = roundExtent(log.memory, payload);
    this.#releases = release;
    this.#run(index);
  }

  #run(index: LogIndex): void {
    const { untilNs, realUsMax, untilQuiet } = this.#extent;
    const limits = { untilVirtualNs: untilNs, realNsMax: realUsMax * 1000, untilIdle: untilQuiet };
    this.port.runLimited(limits, this.port.deliver.head, index, this.#releases);
  }

  /** In lockstep both guests have reset themselves; else the leader's has, and the other was made equal to it. */
  #reset(): void {
    if (this.#exact && this.#ended === undefined) return;
    this.port.reset();
    this.#ended = undefined;
  }

  /** The round has stopped half-way as too much output is held. It goes on as if it had not: the instant is the same. */
  #makeRoom(holdHead: number): void {
    if (this.#serving) {
      this.#release(holdHead);
      return;
    }
    // This replica is behind: what the leader has released since is in records not yet executed.
    const { log, commitIndex } = this.#falcon;
    const at = log.offsetAt(commitIndex);
    if (recordType(log.memory, at) === RoundRecordType.round)
      this.#dropReleased(roundReleasedIndex(log.memory, at + RECORD_HEADER_BYTES));
    this.#dropObsolete();
  }

  /** The record at `index` changes nothing in the guest. */
  passOver(index: LogIndex): void {
    this.#appliedIndex = index;
  }

  /** What the leader says it has released, nobody needs here any more. */
  #dropReleased(releasedIndex: number): void {
    if (this.#serving) return;
    let holdHead: number | undefined;
    for (
      let oldest = this.#held[0];
      oldest !== undefined && oldest.index <= releasedIndex;
      oldest = this.#held[0]
    ) {
      holdHead = oldest.holdHead;
      this.#held.shift();
    }
    this.#forget(holdHead);
  }

  #forget(holdHead: number | undefined): void {
    this.#obsoleteTo = holdHead ?? this.#obsoleteTo;
    if (this.#obsoleteTo !== undefined && (this.#obsoleteTo - this.#droppedTo) >>> 0 >= dropBytesMin)
      this.#dropObsolete();
  }

  #dropObsolete(): void {
    if (this.#obsoleteTo === undefined) return;
    this.port.drop(this.#obsoleteTo);
    this.#droppedTo = this.#obsoleteTo;
    this.#obsoleteTo = undefined;
  }

  #deliver(firstFrame: number, count: number): void {
    const { memory } = this.#falcon.log;
    const { deliver } = this.port;
    let at = firstFrame;
    for (let frame = 0; frame < count; frame++) {
      const bytes = frameBytesAt(memory, at);
      if (this.#listens) this.#recent.agreed(memory.bytes, frameOffsetAt(at), bytes);
      const place = deliver.reserve(bytes);
      // A guest that takes no frames for 4 MiB has lost its network driver: as a NIC would, the frame is dropped,
      // on both sides alike, since both rings hold the same.
      if (place !== -1) {
        const from = frameOffsetAt(at);
        deliver.data.set(memory.bytes.subarray(from, from + bytes), place);
        deliver.commit(entryKind.frame, bytes);
        this.#framesDelivered++;
      }
      at += frameBytesInRound(bytes);
    }
  }
}
