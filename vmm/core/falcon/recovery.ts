/**
 * Building the log again from what the disk kept. A record is taken only if it is whole and continues what
 * was taken before; what it says was committed when it was written is committed.
 */
import type { LogIndex } from '../ids.ts';
import {
  recordChecksum,
  recordCommitIndex,
  recordIndex,
  recordIsIntact,
  recordOriginTerm,
  recordPreviousChecksum,
  recordPreviousTerm,
  recordType,
} from './record.ts';
import type { ReplicaState } from './state.ts';

/** False: harmed, not the next one, or no room, as nothing was said to be applied. */
export function restoreRecord(
  state: ReplicaState,
  source: Uint8Array,
  offset: number,
  length: number,
): boolean {
  const { log, settings } = state;
  if (length > log.limits.recordBytesMax || offset + length > source.length) return false;
  const at = log.stage(source, offset, length);
  const { memory } = log;
  if (!recordIsIntact(memory, at, length, settings.crc32c)) return false;
  const index = recordIndex(memory, at);
  if (index !== log.lastIndex + 1) return false;
  if (!log.matches(log.lastIndex, recordPreviousTerm(memory, at), recordPreviousChecksum(memory, at))) {
    return false;
  }
  const term = recordOriginTerm(memory, at);
  const commitIndex = recordCommitIndex(memory, at);
  if (!state.makeRoom(length, recordType(memory, at))) return false;
  if (!log.append(at, length, term, recordChecksum(memory, at))) return false;
  state.noteAppended();
  state.durableIndex = index;
  state.persistCursor = (index + 1) as LogIndex;
  state.advanceCommit(commitIndex < index ? commitIndex : index);
  state.matchedIndex = state.commitIndex;
  return true;
}
