/**
 * Decides when the leader of a lockstep pair begins the next round and how far it runs. With `icount,sleep=off`
 * an idle guest's virtual time jumps ahead as fast as it is let, so virtual time is granted in slices that keep
 * step with the wall clock. Guarantees: never more than `aheadNsMax` ahead of the wall clock; a frame that has
 * arrived is never kept waiting for anything but that.
 */

export interface PacemakerSettings {
  /** Virtual ns of a round that begins while virtual time is ahead of the wall clock. */
  readonly sliceNsMin: number;
  /** Virtual ns of a round at most: bounds how long a frame waits for the running round. */
  readonly sliceNsMax: number;
  /** Virtual ns of a round of an idle guest, and how far it may fall behind the wall clock before it gets one. */
  readonly idleSliceNs: number;
  readonly aheadNsMax: number;
}

export const DEFAULT_PACEMAKER: PacemakerSettings = {
  sliceNsMin: 250_000,
  sliceNsMax: 2_000_000,
  idleSliceNs: 20_000_000,
  aheadNsMax: 50_000_000,
};

export class Pacemaker {
  readonly #settings: PacemakerSettings;
  /** Wall ns minus virtual ns that count as level. */
  #offsetNs = 0;

  constructor(settings: PacemakerSettings = DEFAULT_PACEMAKER) {
    this.#settings = settings;
  }

  /** From now on this wall time and this virtual time are level: at the begin of a leadership. */
  align(wallNs: number, virtualNs: number): void {
    this.#offsetNs = wallNs - virtualNs;
  }

  /** Virtual ns for a round that begins now, or 0: wait. */
  sliceNs(wallNs: number, virtualNs: number, guestIdle: boolean, framesWait: boolean): number {
    const { sliceNsMin, sliceNsMax, idleSliceNs, aheadNsMax } = this.#settings;
    let behindNs = wallNs - this.#offsetNs - virtualNs;
    if (behindNs > 1_000_000_000) {
      // The host cannot keep step: what was lost is lost, a guest that races to catch up would serve nobody.
      this.align(wallNs - 1_000_000_000, virtualNs);
      behindNs = 1_000_000_000;
    }
    if (behindNs < -aheadNsMax) return 0;
    if (framesWait || !guestIdle) {
      if (behindNs < sliceNsMin) return framesWait || behindNs > 0 ? sliceNsMin : 0;
      return behindNs < sliceNsMax ? behindNs : sliceNsMax;
    }
    return behindNs >= idleSliceNs ? idleSliceNs : 0;
  }

  /** Wall ns until `sliceNs` would say something else without a frame. */
  waitNs(wallNs: number, virtualNs: number, guestIdle: boolean): number {
    const behindNs = wallNs - this.#offsetNs - virtualNs;
    return Math.max(0, (guestIdle ? this.#settings.idleSliceNs : 1) - behindNs);
  }
}
