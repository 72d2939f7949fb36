/**
 * Term, vote and process number of one replica on disk. Guarantees: after `write` returns, a power cut leaves the
 * new state; a crash in the middle leaves the old one. A file that does not parse is refused, never replaced.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { GaiaError } from '../core/errors.ts';
import type { HardState } from '../core/falcon/settings.ts';
import { NO_REPLICA, toReplicaId, toTerm } from '../core/ids.ts';

interface Stored {
  readonly clusterId: string;
  readonly term: number;
  readonly votedFor: number;
  readonly processNumber: number;
}

export class HardStateError extends GaiaError {
  constructor(file: string, what: string) {
    super(
      'GAIA_HARD_STATE',
      `${file} ${what}: the replica must not vote without it; put back the very file that it had last, or end the VM and start it afresh`,
    );
  }
}

export class HardStateFile {
  readonly #file: string;
  readonly #processNumber: number;
  readonly #initial: HardState;

  /** Opens or begins the file and counts this process. */
  constructor(file: string, clusterId: bigint) {
    this.#file = file;
    const stored = existsSync(file) ? parse(file) : undefined;
    if (stored !== undefined && BigInt(stored.clusterId) !== clusterId)
      throw new HardStateError(file, `belongs to cluster ${stored.clusterId}, not ${clusterId}`);
    this.#processNumber = (stored?.processNumber ?? 0) + 1;
    this.#initial = {
      clusterId,
      term: toTerm(stored?.term ?? 0),
      votedFor: stored === undefined || stored.votedFor < 0 ? NO_REPLICA : toReplicaId(stored.votedFor),
    };
    this.write(this.#initial);
  }

  get initial(): HardState {
    return this.#initial;
  }

  /** Higher than that of every earlier process of this replica. */
  get processNumber(): number {
    return this.#processNumber;
  }

  write(state: HardState): void {
    const stored: Stored = {
      clusterId: state.clusterId.toString(),
      term: state.term,
      votedFor: state.votedFor === NO_REPLICA ? -1 : state.votedFor,
      processNumber: this.#processNumber,
    };
    const temporary = `${this.#file}.new`;
    const fd = openSync(temporary, 'w', 0o600);
    try {
      writeSync(fd, `${JSON.stringify(stored)}\n`);
      fdatasyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, this.#file);
    const folder = openSync(dirname(this.#file), 'r');
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  }
}

function parse(file: string): Stored {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new HardStateError(file, `cannot be read (${(error as Error).message})`);
  }
  const stored = (value ?? {}) as Partial<Stored>;
  if (
    typeof stored.clusterId !== 'string' ||
    typeof stored.term !== 'number' ||
    typeof stored.votedFor !== 'number' ||
    typeof stored.processNumber !== 'number'
  )
    throw new HardStateError(file, 'lacks a field');
  return stored as Stored;
}
