/**
 * What one replica keeps on its disk, wired to its Falcon core: term and vote in both kinds of durability, the log
 * with `disk`. Guarantees: the core is told that something is durable only when it is; a log that is taken up is the
 * one that was left, or the replica knows that it lost it and neither votes nor stands until it is level again.
 */
import { closeSync, existsSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Crc32c } from './core/falcon/crc32c.ts';
import type { OlderRecords } from './core/falcon/older-records.ts';
import type { FalconReplica } from './core/falcon/replica.ts';
import type { HardState } from './core/falcon/settings.ts';
import type { LogIndex, ReplicaId } from './core/ids.ts';
import { invariant } from './core/invariant.ts';
import { DiskPace } from './disk-pace.ts';
import { HardStateError, HardStateFile } from './io/hard-state-file.ts';
import { DurableLog } from './io/log/durable-log.ts';
import type { LogBaseState } from './io/log/segment-format.ts';
import { hasSegments, syncFolder } from './io/log/segment-files.ts';
import { NativeSegmentWriter } from './io/log/segment-writer.ts';

const segmentBytes = 16 * 2 ** 20;
/** Room for some thousand records, or a few of the largest, between two syncs. */
const ringBytes = 8 * 2 ** 20;
/** Without checkpoints nothing can be restarted from older records; they only save backups a state transfer. */
const diskBytesMax = 2 ** 30;

export interface StorageSettings {
  readonly durability: 'disk' | 'memory';
  readonly clusterId: bigint;
  readonly self: ReplicaId;
  readonly folder: string;
  readonly hardStateFile: string;
  readonly crc32c: Crc32c;
  /** What the cluster's log began behind. */
  readonly firstBase: LogBaseState;
}

/** What the core is made from. */
export interface Found {
  readonly processNumber: number;
  readonly hardState: HardState;
  readonly base: LogBaseState;
  readonly logLost: boolean;
  readonly olderRecords: OlderRecords | undefined;
}

export class ReplicaStorage {
  readonly falcon: FalconReplica;
  readonly processNumber: number;
  readonly #settings: StorageSettings;
  readonly #hardState: HardStateFile;
  readonly #log: DurableLog | undefined;
  readonly #lostFile: string;
  #isMarkedLost: boolean;
  readonly #pace = new DiskPace();

  /** Opens what is there or begins it, and makes the core from it. Throws a GaiaError that says what is wrong. */
  constructor(settings: StorageSettings, makeCore: (found: Found) => FalconReplica) {
    this.#settings = settings;
    this.#lostFile = join(settings.folder, 'log-lost');
    const opened = settings.durability === 'disk' ? this.#openLog(makeCore) : this.#openWithoutLog(makeCore);
    this.falcon = opened.falcon;
    this.#hardState = opened.hardState;
    this.#log = opened.log;
    this.processNumber = opened.hardState.processNumber;
    this.#isMarkedLost = existsSync(this.#lostFile);
  }

  #openHardState(): HardStateFile {
    return new HardStateFile(this.#settings.hardStateFile, this.#settings.clusterId);
  }

  #openWithoutLog(makeCore: (found: Found) => FalconReplica) {
    const hardState = this.#openHardState();
    const { processNumber, initial } = hardState;
    const logLost = processNumber > 1;
    const { firstBase } = this.#settings;
    const falcon = makeCore({
      processNumber,
      hardState: initial,
      base: firstBase,
      logLost,
      olderRecords: undefined,
    });
    return { falcon, hardState, log: undefined };
  }

  /**
   * Term and vote are begun after the log, so that a crash between the two leaves a log without records. A log with
   * records but without them has lost its vote; they without a log have lost the log.
   */
  #openLog(makeCore: (found: Found) => FalconReplica) {
    const { clusterId, self, folder, hardStateFile, crc32c, firstBase } = this.#settings;
    const hasVoted = existsSync(hardStateFile);
    let begun: { readonly base: LogBaseState; readonly found: boolean } | undefined;
    let opened: { readonly falcon: FalconReplica; readonly hardState: HardStateFile } | undefined;
    let log: DurableLog | undefined = undefined;
    const older: OlderRecords = {
      get firstIndex() {
        return log?.firstIndex ?? Infinity;
      },
      read: (index, target, at) => log?.read(index, target, at) ?? 0,
    };
    const core = (): FalconReplica => {
      invariant(begun !== undefined, 'a log begins before its records');
      opened ??= this.#makeCore(makeCore, begun.base, hasVoted && !begun.found, older);
      return opened.falcon;
    };
    // What is not known to be whole is not taken for whole by a later start either.
    if (hasVoted && !hasSegments(folder)) makeDurableFile(this.#lostFile, folder);
    const writer = new NativeSegmentWriter(ringBytes);
    log = new DurableLog(
      {
        ...{ folder, identity: { clusterId, replica: self }, crc32c, segmentBytes, diskBytesMax, firstBase },
        stateAt: (index) => stateAt(core(), index),
      },
      writer,
      {
        begin: (base, found) => {
          begun = { base, found };
        },
        record: ({ bytes }, at, length) => {
          if (!hasVoted) throw new HardStateError(hardStateFile, 'is missing, though there is a log');
          const falcon = core();
          const taken = falcon.restoreRecord(bytes, at, length);
          invariant(taken, 'the core takes a record that recovery found whole');
          // What memory has no room for is read back from the disk when it is needed.
          falcon.applied(falcon.commitIndex);
        },
        truncated: (index) => core().state.truncateTo(index),
      },
    );
    core();
    invariant(opened !== undefined, 'the core is made when the log is open');
    return { ...(opened as { falcon: FalconReplica; hardState: HardStateFile }), log };
  }

  #makeCore(
    makeCore: (found: Found) => FalconReplica,
    base: LogBaseState,
    lost: boolean,
    olderRecords: OlderRecords,
  ): { readonly falcon: FalconReplica; readonly hardState: HardStateFile } {
    const hardState = this.#openHardState();
    const { processNumber, initial } = hardState;
    const logLost = lost || existsSync(this.#lostFile);
    return {
      hardState,
      falcon: makeCore({ processNumber, hardState: initial, base, logLost, olderRecords }),
    };
  }

  // Term and vote ----------------------------------------------------------------------------------------

  /** Makes term and vote durable, where they have changed. True: they had. */
  persistHardState(): boolean {
    const { falcon } = this;
    if (!falcon.hardStateDirty) return false;
    this.#hardState.write(falcon.hardState());
    falcon.hardStatePersisted();
    return true;
  }

  // The log ----------------------------------------------------------------------------------------------

  /** Readable when `poll` may have something new; -1: never. */
  get eventFd(): number {
    return this.#log?.eventFd ?? -1;
  }

  drain(): void {
    this.#log?.drain();
  }

  /** Tells the core what has become durable. True: something has. Throws a LogFailedError when the disk has failed. */
  poll(nowUs: number): boolean {
    const log = this.#log;
    if (log === undefined) return false;
    const { falcon } = this;
    const more = log.poll(nowUs);
    if (more) falcon.durable(log.durableIndex, log.durableEpoch);
    this.#pace.look(nowUs, more, log.owes);
    const { commitIndex, appliedIndex, durableIndex } = falcon.state;
    log.superfluousIndex = Math.min(commitIndex, appliedIndex, durableIndex);
    if (this.#isMarkedLost && !falcon.state.logLost) this.#unmarkLost();
    return more;
  }

  #unmarkLost(): void {
    this.#isMarkedLost = false;
    rmSync(this.#lostFile, { force: true });
    syncFolder(this.#settings.folder);
  }

  /** Hands over what is to be written, as much as there is room for. True: there was something. */
  persist(): boolean {
    const log = this.#log;
    if (log === undefined) return false;
    const { falcon } = this;
    let handed = false;
    for (let index = falcon.nextToPersist(); index !== 0; index = falcon.nextToPersist()) {
      const { memory } = falcon.log;
      const at = falcon.log.offsetAt(index);
      if (!log.append(memory, at, falcon.log.bytesAt(index), falcon.persistEpoch)) break;
      falcon.handedToPersist(index);
      handed = true;
    }
    return handed;
  }

  /** As `FalconReplica.takeRebased`; the new beginning is on disk by then. */
  takeRebased(): LogIndex | undefined {
    const { falcon } = this;
    if (falcon.state.rebasedIndex !== undefined) {
      const { base } = falcon;
      this.#log?.beginAnew(base, falcon.persistEpoch);
    }
    return falcon.takeRebased();
  }

  /** The disk has had no room for more of the log since this time, ms ago; undefined: it has. */
  fullForMs(nowUs: number): number | undefined {
    const since = this.#log?.stuck === true ? this.#log.fullSinceUs : undefined;
    return since === undefined ? undefined : (nowUs - since) / 1000;
  }

  /** The disk takes nothing more, or finishes nothing: a leader must not look alive then. */
  get stalls(): boolean {
    return this.#log?.stuck === true || this.#pace.stalls;
  }

  /** Once each time that the disk becomes slow: how long it took for a write, ms. */
  takeSlowMs(): number | undefined {
    const tookUs = this.#pace.takeSlow();
    return tookUs === undefined ? undefined : Math.round(tookUs / 1000);
  }

  close(): void {
    this.#log?.close();
  }
}

/** Sets that are newer than the record never do harm: they are in the log, and may be committed already. */
function stateAt({ state }: FalconReplica, index: LogIndex): Pick<LogBaseState, 'executing' | 'members'> {
  const newest = Math.max(index, state.commitIndex) as LogIndex;
  return { executing: state.executing.committed(newest), members: state.membership.committed(newest) };
}

function makeDurableFile(file: string, folder: string): void {
  closeSync(openSync(file, 'a', 0o600));
  syncFolder(folder);
}
