/**
 * The one stretch of memory from which this replica takes records: made for one writer and one term. Once
 * another is asked for, or the term has passed, it is closed and never read again, so that nothing a
 * deposed leader still puts there is ever seen.
 */
import { NO_REPLICA, type LogIndex, type ReplicaId, type Term } from '../ids.ts';

/** What the shell is asked for: fresh memory, and its key by `regionOpened`. */
export interface RegionRequest {
  readonly writer: ReplicaId;
  readonly term: Term;
}

export class ReadRegion {
  writer = NO_REPLICA;
  term = 0 as Term;
  /** Invariant: records are taken only while this is `open`. */
  status: 'closed' | 'asked' | 'open' = 'closed';
  key: Uint8Array = new Uint8Array(0);
  /** How many were opened by this process: a peer tells the newer of two keys by it. */
  number = 0;
  /** The answer that goes out once the region is open: the vote it was granted with, or just its key. */
  answersVote = false;
  /** Counter of the newest heartbeat seen in it. */
  heartbeatCounter = 0;
  /** First word of the newest heartbeat block that was whole: as long as it stands, nothing new is said. */
  heartbeatWord = 0;
  /** The highest commit index that a heartbeat in it told. */
  commitIndex = 0 as LogIndex;
  #request: RegionRequest | undefined;

  isFor(writer: ReplicaId, term: Term): boolean {
    return this.status !== 'closed' && this.writer === writer && this.term === term;
  }

  ask(writer: ReplicaId, term: Term, answersVote: boolean): void {
    this.writer = writer;
    this.term = term;
    this.status = 'asked';
    this.answersVote = answersVote;
    this.heartbeatCounter = 0;
    this.heartbeatWord = 0;
    this.commitIndex = 0 as LogIndex;
    this.#request = { writer, term };
  }

  takeRequest(): RegionRequest | undefined {
    const request = this.#request;
    this.#request = undefined;
    return request;
  }

  opened(key: Uint8Array): void {
    this.key = key.slice();
    this.status = 'open';
    this.number++;
  }

  close(): void {
    this.status = 'closed';
    this.writer = NO_REPLICA;
    this.#request = undefined;
  }
}
