/** The numbers that must not be mixed up. All are exact in a double; none is ever negative. */

/** Election epoch of the log, from 1; 0 before the first election. Fits 31 bits, so that V8 never boxes it. */
export type Term = number & { readonly brand: 'Term' };
/** Position of a record in the log, from 1; 0 stands for "before the first record". Up to 2^53 - 1. */
export type LogIndex = number & { readonly brand: 'LogIndex' };
/** Who a replica is, 0 to `REPLICA_ID_MAX`. An id is never given to another replica, nor to one that lost its log. */
export type ReplicaId = number & { readonly brand: 'ReplicaId' };

export const TERM_MAX = 0x7fff_ffff;
export const REPLICA_ID_MAX = 254;
/** Stands for "no replica" wherever a `ReplicaId` is stored in typed memory. */
export const NO_REPLICA = 255 as ReplicaId;

export function toTerm(value: number): Term {
  if (!Number.isInteger(value) || value < 0 || value > TERM_MAX) {
    throw new RangeError(`A term must be a whole number from 0 to ${TERM_MAX}, not ${value}`);
  }
  return value as Term;
}

export function toLogIndex(value: number): LogIndex {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`A log index must be a whole number from 0 to 2^53 - 1, not ${value}`);
  }
  return value as LogIndex;
}

export function toReplicaId(value: number): ReplicaId {
  if (!Number.isInteger(value) || value < 0 || value > REPLICA_ID_MAX) {
    throw new RangeError(`A replica id must be a whole number from 0 to ${REPLICA_ID_MAX}, not ${value}`);
  }
  return value as ReplicaId;
}
