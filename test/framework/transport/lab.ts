/** Processes that are joined by one transport, for one check: all end with it, or go back to a pool unharmed. */
import type { TransportSettings } from '../../../vmm/io/transport/open.ts';
import { Actor } from './actor.ts';

/** One promise of vmm/io/transport/transport.ts, and how it is put to the test. */
export interface TransportCheck {
  readonly title: string;
  readonly run: (lab: TransportLab) => Promise<void>;
}

/** How much a check repeats: everything, or a fifth of it where processors are slow. */
export type Thoroughness = 'full' | 'brief';

/** Keeps processes for the next check, where starting one takes long. */
export class ActorPool {
  readonly #idle: Actor[] = [];

  take(id: number): Actor {
    const idle = this.#idle.shift();
    if (idle === undefined) return new Actor(id);
    idle.id = id;
    return idle;
  }

  /** Only a process that holds no transport any more, and does nothing, is kept. */
  async give(actor: Actor): Promise<void> {
    if (await actor.reset()) this.#idle.push(actor);
    else await actor.kill();
  }

  async end(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((actor) => actor.kill()));
  }
}

class TransportLab {
  readonly #settings: TransportSettings;
  readonly #thoroughness: Thoroughness;
  readonly #pool: ActorPool | undefined;
  readonly #actors: Actor[] = [];

  constructor(settings: TransportSettings, thoroughness: Thoroughness, pool: ActorPool | undefined) {
    this.#settings = settings;
    this.#thoroughness = thoroughness;
    this.#pool = pool;
  }

  async start(id: number): Promise<Actor> {
    const actor = this.#pool?.take(id) ?? new Actor(id);
    this.#actors.push(actor);
    await actor.open(this.#settings);
    return actor;
  }

  async pair(): Promise<readonly [Actor, Actor]> {
    const [one, two] = await Promise.all([this.start(1), this.start(2)]);
    await one.meet(two);
    return [one, two];
  }

  /** How often something is done that a thorough check does `count` times. */
  repeats(count: number): number {
    return this.#thoroughness === 'full' ? count : Math.max(2, Math.ceil(count / 5));
  }

  async end(): Promise<void> {
    const pool = this.#pool;
    await Promise.all(this.#actors.map((actor) => (pool === undefined ? actor.kill() : pool.give(actor))));
  }
}

/** Runs one check, with processes of its own if there is no pool. */
export async function runCheck(
  check: TransportCheck,
  settings: TransportSettings,
  thoroughness: Thoroughness = 'full',
  pool?: ActorPool,
): Promise<void> {
  const lab = new TransportLab(settings, thoroughness, pool);
  try {
    await check.run(lab);
  } finally {
    await lab.end();
  }
}
