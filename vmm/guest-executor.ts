/**
 * Runs one guest by the committed log: every round's record becomes frames in the deliver ring and a run to the
 * round's virtual instant. Guarantees: only committed records reach the guest, in order, each once; output leaves
 * only while this replica serves; a backup forgets output that the leader has released.
 */
import { recordCount, recordType, RECORD_HEADER_BYTES } from './core/falcon/record.ts';
import type { FalconReplica } from './core/falcon/replica.ts';
import type { LogIndex } from './core/ids.ts';
import {
  frameBytesAt,
  frameBytesInRound,
  frameOffsetAt,
  ROUND_HEADER_BYTES,
  RoundRecordType,
  roundReleasedIndex,
  roundUntilNs,
} from './core/rounds/round-record.ts';
import { entryKind, stopReason } from './io/qemu/layout.ts';
import type { GuestPort, Stopped } from './io/qemu/port.ts';
import type { Tap } from './io/tap.ts';

/** A round is over in milliseconds; QEMU that takes this long for one does not come back. */
const roundHangsUs = 3_000_000;

/** What a guest does to itself, at the same instant on both sides. */
const guestEnds: ReadonlySet<number> = new Set([stopReason.shutdown, stopReason.reset, stopReason.panic]);

interface HeldRound {
  readonly index: LogIndex;
  readonly holdHead: number;
}

export class GuestExecutor {
  readonly port: GuestPort;
  readonly #falcon: FalconReplica;
  readonly #tap: Tap;
  /** Invariant: the guest's state is that after exactly the records up to here. */
  #appliedIndex = 0 as LogIndex;
  #running = 0 as LogIndex;
  #runningSinceUs = 0;
  #runningUntilNs = 0;
  #ended: number | undefined;
  #serving = false;
  /** The agent opens the tap with its carrier up. */
  #carrier = true;
  #virtualNs = 0;
  #idle = false;
  #framesDelivered = 0;
  /** Rounds whose output is still held, oldest first. */
  readonly #held: HeldRound[] = [];

  constructor(port: GuestPort, falcon: FalconReplica, tap: Tap) {
    this.port = port;
    this.#falcon = falcon;
    this.#tap = tap;
  }

  get appliedIndex(): LogIndex {
    return this.#appliedIndex;
  }

  /** The guest stands between two rounds. */
  get stands(): boolean {
    return this.#running === 0;
  }

  /** The running round is not coming to its end. */
  hangs(nowUs: number): boolean {
    return !this.stands && nowUs - this.#runningSinceUs > roundHangsUs;
  }

  /** Virtual instant at which the running round ends, ns. */
  get runningUntilNs(): number {
    return this.#runningUntilNs;
  }

  /** The guest has powered itself off, reset itself or crashed: the stop reason, until a record says what becomes of it. */
  get ended(): number | undefined {
    return this.#ended;
  }

  get virtualNs(): number {
    return this.#virtualNs;
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
    this.#appliedIndex = index;
    this.#ended = undefined;
    this.#virtualNs = virtualNs;
    this.#held.length = 0;
    this.#setCarrier(true); // A deposed leader took it down; now it may have to serve again.
  }

  /** Frames from clients come in, output goes out: what the guest still holds was never contradicted. */
  beginServing(): void {
    this.#serving = true;
    this.#setCarrier(true);
    this.#tap.announce();
    this.port.divertIngress(true);
    const newest = this.#held.at(-1);
    if (newest !== undefined) this.port.release(newest.holdHead);
    this.#held.length = 0;
  }

  /** No output from now on, and no input from clients. */
  endServing(): void {
    this.#serving = false;
    this.port.divertIngress(false);
    this.#setCarrier(false);
  }

  #setCarrier(up: boolean): void {
    this.#carrier = up;
    this.#tap.setCarrier(up);
  }

  /** Executes on, without serving: after a handover its port is up again, as a backup's is. */
  standBy(): void {
    if (!this.#serving && !this.#carrier) this.#setCarrier(true);
  }

  /** Takes the end of the running round. True when there was one. */
  takeEnd(): boolean {
    if (this.#running === 0) return false;
    const stopped = this.port.takeStopped();
    if (stopped === undefined) return false;
    this.#roundEnded(stopped);
    return true;
  }

  #roundEnded(stopped: Stopped): void {
    if (stopped.reason === stopReason.holdFull) {
      this.#makeRoom(stopped.holdHead);
      this.port.run(this.#runningUntilNs, this.port.deliver.head, this.#running, this.#serving);
      return;
    }
    if (guestEnds.has(stopped.reason)) this.#ended = stopped.reason;
    else if (stopped.reason !== stopReason.deadline) {
      // A disk or an operator of this host, but not the guest: it cannot be at the same record as the other one.
      this.port.quit();
      return;
    }
    this.#virtualNs = stopped.virtualNs;
    this.#idle = stopped.idle;
    if (!this.#serving) this.#held.push({ index: this.#running, holdHead: stopped.holdHead });
    this.#appliedIndex = this.#running;
    this.#running = 0 as LogIndex;
    this.#falcon.applied(this.#appliedIndex);
  }

  /** The next committed record, if the guest stands: its index, or 0. */
  nextCommitted(): LogIndex {
    const next = (this.#appliedIndex + 1) as LogIndex;
    return this.stands && next <= this.#falcon.commitIndex ? next : (0 as LogIndex);
  }

  /**
   * Begins the round of the record at `index`, or passes over a record that is no round. A round that was agreed on
   * before anyone knew that the guest ends is passed over, on both sides alike, and its frames are lost as on a wire.
   */
  execute(index: LogIndex): void {
    const { log } = this.#falcon;
    const at = log.offsetAt(index);
    const type = recordType(log.memory, at);
    if (type === RoundRecordType.guestReset && this.#ended !== undefined) {
      this.port.reset();
      this.#ended = undefined;
    }
    if (type !== RoundRecordType.round || this.#ended !== undefined) {
      this.passOver(index);
      return;
    }
    const payload = at + RECORD_HEADER_BYTES;
    this.#dropReleased(roundReleasedIndex(log.memory, payload));
    this.#deliver(payload + ROUND_HEADER_BYTES, recordCount(log.memory, at));
    this.#running = index;
    this.#runningSinceUs = this.#falcon.state.nowUs;
    this.#runningUntilNs = roundUntilNs(log.memory, payload);
    this.port.run(this.#runningUntilNs, this.port.deliver.head, index, this.#serving);
  }

  /** The round has stopped half-way as too much output is held. It goes on as if it had not: the instant is the same. */
  #makeRoom(holdHead: number): void {
    if (this.#serving) {
      this.port.release(holdHead);
      return;
    }
    // This replica is behind: what the leader has released since is in records not yet executed.
    const { log, commitIndex } = this.#falcon;
    const at = log.offsetAt(commitIndex);
    if (recordType(log.memory, at) === RoundRecordType.round)
      this.#dropReleased(roundReleasedIndex(log.memory, at + RECORD_HEADER_BYTES));
  }

  /** The record at `index` changes nothing in the guest. */
  passOver(index: LogIndex): void {
    this.#appliedIndex = index;
    this.#falcon.applied(index);
  }

  /** What the leader says it has released, nobody needs here any more. */
  #dropReleased(releasedIndex: number): void {
    let holdHead: number | undefined;
    for (
      let oldest = this.#held[0];
      oldest !== undefined && oldest.index <= releasedIndex;
      oldest = this.#held[0]
    ) {
      holdHead = oldest.holdHead;
      this.#held.shift();
    }
    if (holdHead !== undefined && !this.#serving) this.port.drop(holdHead);
  }

  #deliver(firstFrame: number, count: number): void {
    const { memory } = this.#falcon.log;
    const { deliver } = this.port;
    let at = firstFrame;
    for (let frame = 0; frame < count; frame++) {
      const bytes = frameBytesAt(memory, at);
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
