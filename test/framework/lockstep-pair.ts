/**
 * Two guests that were made equal once and from then on get the same frames and run to the same virtual instants.
 * The leader's output goes to its tap, the backup's is dropped, as the agents would have it.
 */
import type { Stopped } from '../../vmm/io/qemu/port.ts';
import { cloneGuest } from './clone-guest.ts';
import type { PortGuest } from './port-guest.ts';

export interface PairRound {
  readonly frames: readonly Uint8Array[];
  /** How the round ended for leader and backup. */
  readonly stopped: readonly [PairStop, PairStop];
  /** What each sent in it, as hexadecimal digits. */
  readonly output: readonly [readonly string[], readonly string[]];
}

/** What must be equal in a stop; positions in the hold ring depend on what was held before the clone. */
type PairStop = Omit<Stopped, 'holdHead'>;

export class LockstepPair {
  readonly leader: PortGuest;
  readonly backup: PortGuest;

  private constructor(leader: PortGuest, backup: PortGuest) {
    this.leader = leader;
    this.backup = backup;
  }

  /** Gives the standing `leader`'s whole state to `backup`, a fresh guest of the same machine. */
  static clone(leader: PortGuest, backup: PortGuest): LockstepPair {
    cloneGuest(leader, backup);
    return new LockstepPair(leader, backup);
  }

  get guests(): readonly [PortGuest, PortGuest] {
    return [this.leader, this.backup];
  }

  /** One round on both, at the same time; unless given, the frames are what came from the leader's tap. */
  round(ns: number, frames: readonly Uint8Array[] = this.leader.takeIngress()): PairRound {
    const untilNs = this.leader.virtualNs + ns;
    this.leader.begin(untilNs, frames, true);
    this.backup.begin(untilNs, frames);
    const stopped = [
      withoutHold(this.leader.awaitStopped()),
      withoutHold(this.backup.awaitStopped()),
    ] as const;
    const output = [hexOf(this.leader.takeOutput()), hexOf(this.backup.takeOutput())] as const;
    this.backup.port.drop(this.backup.held.head);
    return { frames, stopped, output };
  }
}

function withoutHold({ virtualNs, deliverTail, reason, idle }: Stopped): PairStop {
  return { virtualNs, deliverTail, reason, idle };
}

function hexOf(frames: readonly Uint8Array[]): string[] {
  return frames.map((frame) => Buffer.from(frame).toString('hex'));
}
