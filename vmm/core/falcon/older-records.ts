/**
 * What a leader can still read of the records that its memory has dropped: the durable log, seen from the
 * core. A peer that lacks them is caught up from here while commit goes on; one that lacks even older ones
 * begins its log anew behind them (rejoin.ts).
 */
import type { LogIndex } from '../ids.ts';
import type { RecordMemory } from './record.ts';

export interface OlderRecords {
  /** The oldest record that can be read. Rises when the log is cut behind a checkpoint; Infinity: none. */
  readonly firstIndex: number;

  /**
   * Copies the bytes of record `index`, exactly as they were handed to the disk, to `target.bytes[at ...]`, and
   * returns their number; 0 when they cannot be read now or do not fit. The core checks them, so a harmed
   * segment is never sent on.
   */
  read(index: LogIndex, target: RecordMemory, at: number): number;
}
