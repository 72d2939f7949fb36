/**
 * Which states a replica has met: every replica's state folder has a name of its own, told to the peers and kept by
 * them. So a replica whose folder was lost is known as such, and does not vote as if it had promised nothing.
 * Guarantee: what is noted is on disk when the call returns.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { GaiaError } from './core/errors.ts';

interface Stored {
  readonly self: string;
  readonly begun: boolean;
  readonly peers: Readonly<Record<string, string>>;
}

export class PeerStates {
  readonly #file: string;
  #stored: Stored;

  /** Opens or begins the file. */
  constructor(file: string) {
    this.#file = file;
    if (existsSync(file)) {
      this.#stored = parse(file);
      return;
    }
    this.#stored = { self: randomUUID(), begun: false, peers: {} };
    this.#write();
  }

  /** Names this replica's state folder. */
  get self(): string {
    return this.#stored.self;
  }

  /** This replica may have taken part in something: what it holds must not be lost any more. */
  get begun(): boolean {
    return this.#stored.begun;
  }

  begin(): void {
    if (this.begun) return;
    this.#stored = { ...this.#stored, begun: true };
    this.#write();
  }

  /** False: this is not the state of the peer that this replica began with. */
  note(peer: string, state: string): boolean {
    const known = this.#stored.peers[peer];
    if (known === state) return true;
    if (known !== undefined && this.begun) return false;
    this.#stored = { ...this.#stored, peers: { ...this.#stored.peers, [peer]: state } };
    this.#write();
    return true;
  }

  #write(): void {
    const draft = `${this.#file}.new`;
    const fd = openSync(draft, 'w', 0o600);
    try {
      writeSync(fd, `${JSON.stringify(this.#stored)}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(draft, this.#file);
    const folder = openSync(dirname(this.#file), 'r');
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  }
}

function parse(file: string): Stored {
  try {
    const { self, begun, peers } = JSON.parse(readFileSync(file, 'utf8')) as Partial<Stored>;
    if (typeof self === 'string' && typeof begun === 'boolean' && typeof peers === 'object')
      return { self, begun, peers };
  } catch {
    // Said below.
  }
  throw new GaiaError(
    'GAIA_PEER_STATES',
    `${file} cannot be read, and this replica must not take part without it: restore it from a copy`,
  );
}
