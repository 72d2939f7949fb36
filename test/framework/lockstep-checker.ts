/**
 * Checks what lockstep promises: after each round both guests stopped alike and sent the same frames, and all that
 * either of them has written is the same on both. What is not so is a finding, in words.
 */
import { uniteInto } from '../../merkle/bitmap.ts';
import { differingPages, differingPagesIn, DirtyWatch } from './guest-memory.ts';
import type { LockstepPair, PairRound } from './lockstep-pair.ts';

export class LockstepChecker {
  readonly findings: string[] = [];
  frames = 0;
  outputFrames = 0;
  rounds = 0;
  readonly #pair: LockstepPair;
  readonly #watched: readonly [DirtyWatch, DirtyWatch];
  readonly #union: Uint32Array;

  /** The pair must be equal. */
  constructor(pair: LockstepPair) {
    this.#pair = pair;
    const { leader, backup } = pair;
    this.#watched = [new DirtyWatch(leader.port), new DirtyWatch(backup.port)];
    this.#union = new Uint32Array(leader.port.dirtyBitmap.length);
    this.#note('at the beginning', differingPages(leader.port, backup.port));
  }

  /** Pages that really changed, and pages that the bitmaps named, on both sides together. */
  get pages(): { readonly changed: number; readonly dirty: number } {
    const [leader, backup] = this.#watched;
    return {
      changed: leader.changedPages + backup.changedPages,
      dirty: leader.dirtyPages + backup.dirtyPages,
    };
  }

  /** A round, whose dirty pages are compared. */
  round(ns: number): void {
    const round = this.#pair.round(ns);
    const { leader, backup } = this.#pair;
    this.rounds++;
    this.frames += round.frames.length;
    this.outputFrames += round.output[0].length;
    const which = `round ${this.rounds}`;
    this.#note(which, differencesOf(round));
    this.#union.fill(0);
    for (const [index, guest] of [leader, backup].entries()) {
      this.#watched[index]?.collect();
      uniteInto(this.#union, guest.port.dirtyBitmap);
    }
    this.#note(which, differingPagesIn(this.#union, leader.port, backup.port));
  }

  /** Compares all memory, whatever the bitmaps say, and holds them against it. */
  compareAll(): void {
    const which = `after round ${this.rounds}`;
    this.#note(which, differingPages(this.#pair.leader.port, this.#pair.backup.port));
    for (const [index, side] of (['leader', 'backup'] as const).entries()) {
      const missing = this.#watched[index]?.check() ?? [];
      this.#note(`${which}, missing in the ${side}'s bitmap`, missing);
    }
  }

  #note(which: string, what: readonly string[]): void {
    if (what.length > 0)
      this.findings.push(`${which}: ${what.slice(0, 8).join(', ')} (${what.length} in all)`);
  }
}

function differencesOf({ stopped, output }: PairRound): string[] {
  const [leader, backup] = stopped.map((stop) => JSON.stringify(stop));
  const stops = leader === backup ? [] : [`stopped at ${leader ?? ''} and ${backup ?? ''}`];
  const frames = output[0].flatMap((frame, at) =>
    frame === output[1][at] ? [] : [`output frame ${at} is ${frame} and ${output[1][at] ?? 'missing'}`],
  );
  const more = output[1].slice(output[0].length).map((frame) => `the backup alone sent ${frame}`);
  return [...stops, ...frames, ...more];
}
