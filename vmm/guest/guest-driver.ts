/**
 * What moves one replica's guest, from one pass of the engine to the next: executes what is committed, keeps it equal
 * to its partner's, and while this replica serves proposes what comes next. One driver per guest process.
 */
import type { FalconReplica } from '../core/falcon/replica.ts';
import type { LogIndex, ReplicaId } from '../core/ids.ts';
import type { Transport, TransportPeer } from '../io/transport/transport.ts';
import type { GuestExecutor } from './guest-executor.ts';

/** What drivers know of the engine around them. */
export interface DriverSurroundings {
  readonly self: ReplicaId;
  readonly falcon: FalconReplica;
  readonly transport: Transport;
  /** Of this guest's process: see `Executor` in core/falcon/executing-set.ts. */
  readonly incarnation: number;
  readonly guestMemoryBytes: number;
  /** The guest's service has answered once: before that its state is given to nobody. */
  readonly guestReady: boolean;
  noteGuestReady(): void;
  name(replica: ReplicaId): string;
  event(name: string, text: string, data?: Readonly<Record<string, number | string>>): void;
  /** From the record `index` on this replica serves. */
  serves(index: LogIndex): void;
  /** The guest has ended by itself, by the committed record `index`, and stays so. */
  guestOff(how: 'powered off' | 'crashed', index: LogIndex): void;
}

/** What the state of one guest is, for people. */
export interface DriverFigures {
  readonly rounds: number;
  readonly roundsPerSecond: number;
  /** Comparisons found equal, and the pages in them. */
  readonly verifications: number;
  readonly verifiedPages: number;
  /** Comparisons whose roots differed although they must not. */
  readonly mismatches: number;
  readonly divergentPages: number;
  readonly exchange: ExchangeFigures | null;
  readonly transfer: DriverTransfer | null;
}

/** Of the last rounds that this replica led; times in ms, by percentile. */
export interface ExchangeFigures {
  readonly pauseMs: Percentiles;
  readonly heldMs: Percentiles;
  /** What the pause was spent on: union, comparison, shipping, applying and proving; mean ms. */
  readonly openMs: number;
  readonly compareMs: number;
  readonly shipMs: number;
  readonly applyMs: number;
  /** Means of a round. */
  readonly dirtyPages: number;
  readonly unionPages: number;
  readonly divergentPages: number;
  readonly sentBytes: number;
  /** Of the bytes of all dirty pages. */
  readonly savedPercent: number;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface DriverTransfer {
  readonly to: ReplicaId;
  readonly sentBytes: number;
  /** At most; pages that are zero do not travel. */
  readonly totalBytes: number;
  readonly guestStands: boolean;
  readonly forMs: number;
}

export interface GuestDriver {
  readonly executor: GuestExecutor;
  /** The guest has to get another one's state before it executes anything. */
  readonly outside: boolean;
  /** True when there was something to do, so that another pass may find more. Throws a `PortError`. */
  pass(nowUs: number): boolean;
  /** Microseconds until something falls due without an input; Infinity: nothing does. Throws a `PortError`. */
  waitUs(nowUs: number): number;
  receive(peer: TransportPeer, kind: number, bytes: Uint8Array): void;
  /** Its process has ended, or can be reached no more. */
  peerGone(peer: ReplicaId): void;
  peerConnected(peer: ReplicaId): void;
  /** The log began anew behind this record. */
  logRebased(index: LogIndex): void;
  /** Gives the leadership away; both go on executing. Returns why not, if so. */
  handOver(to: ReplicaId): string | undefined;
  figures(nowUs: number): DriverFigures;
}
