/** What one exchange cost: reported once per round, and summed up for people. Times are the caller's, microseconds. */
export type ExchangeKind =
  /** Lockstep: memories are compared, nothing is shipped. */
  | 'compare'
  /** Both have executed the round: what differs is shipped. */
  | 'reconcile'
  /** The backup, whatever it holds, becomes equal to the leader. */
  | 'adopt'
  /** The backup does not execute: every page that changed is shipped. */
  | 'checkpoint';

/** Bytes of the last staging, its pages by form with their headers, and the device state. */
export interface StagedBytes {
  readonly zero: number;
  readonly repeated: number;
  readonly sparse: number;
  readonly delta: number;
  readonly whole: number;
  readonly state: number;
}

export interface RoundReport {
  readonly kind: ExchangeKind;
  readonly index: number;
  /** Attempts until it came about, or was given up. */
  readonly attempts: number;
  /** Pages of the leader's own set, of the union, and of those that differed. */
  readonly dirtyPages: number;
  readonly unionPages: number;
  readonly divergentPages: number;
  /** Nothing was known of what may differ, so all pages were compared. */
  readonly wholeMemory: boolean;
  readonly messages: number;
  /** Sent by the leader, all attempts: everything, and of that what carried pages and state. */
  readonly sentBytes: number;
  readonly stagedBytes: number;
  readonly stagedAs: StagedBytes;
  /** Pages that were shipped once more, whole: the backup did not have what their deltas are from. */
  readonly wantedPages: number;
  /** State of the devices, before it was made smaller. */
  readonly stateBytes: number;
  /** Bitmaps there and back, both sides' stop included. */
  readonly openUs: number;
  /** Hashes there and back, until it is known what differs. */
  readonly compareUs: number;
  readonly shipUs: number;
  /** From the last byte sent until the backup has proven itself equal. */
  readonly applyUs: number;
}

/** How an exchange ended on one side. */
export type ExchangeOutcome =
  /** Both memories are equal at `report.index`. */
  | { readonly type: 'equal'; readonly report: RoundReport }
  /** `compare` only: they are not; the pages, as far as they were found. */
  | { readonly type: 'different'; readonly report: RoundReport; readonly pages: readonly number[] }
  /** After applying, the backup's root is not the leader's: a bug, or bad memory. */
  | { readonly type: 'mismatch'; readonly report: RoundReport; readonly text: string }
  /** Nothing came of it: the backup is not waiting, or has lost its part of a comparison and gone on since. */
  | { readonly type: 'void'; readonly report: RoundReport }
  /** One side refused what the other said; nothing was applied. */
  | { readonly type: 'refused'; readonly report: RoundReport; readonly text: string };

const NOTHING: RoundReport = {
  kind: 'reconcile',
  index: 0,
  attempts: 0,
  dirtyPages: 0,
  unionPages: 0,
  divergentPages: 0,
  wholeMemory: false,
  messages: 0,
  sentBytes: 0,
  stagedBytes: 0,
  stagedAs: { zero: 0, repeated: 0, sparse: 0, delta: 0, whole: 0, state: 0 },
  wantedPages: 0,
  stateBytes: 0,
  openUs: 0,
  compareUs: 0,
  shipUs: 0,
  applyUs: 0,
};

type Mutable = { -readonly [Key in keyof RoundReport]: RoundReport[Key] };

/** Fills a report while its exchange runs. */
export class RoundTally {
  readonly #report: Mutable;
  #sinceUs: number;

  constructor(kind: ExchangeKind, index: number, nowUs: number) {
    this.#report = { ...NOTHING, kind, index };
    this.#sinceUs = nowUs;
  }

  /** The time since the last step was `step`'s. */
  spent(step: 'openUs' | 'compareUs' | 'shipUs' | 'applyUs', nowUs: number): void {
    this.#report[step] += nowUs - this.#sinceUs;
    this.#sinceUs = nowUs;
  }

  note(values: Partial<RoundReport>): void {
    Object.assign(this.#report, values);
  }

  get report(): RoundReport {
    return { ...this.#report };
  }
}
