/** Processes that are joined by one transport, for one check: all end with it. */
import type { TransportSettings } from '../../../vmm/io/transport/open.ts';
import { Actor } from './actor.ts';

/** One promise of vmm/io/transport/transport.ts, and how it is put to the test. */
export interface TransportCheck {
  readonly title: string;
  readonly run: (lab: TransportLab) => Promise<void>;
}

class TransportLab {
  readonly #settings: TransportSettings;
  readonly #actors: Actor[] = [];

  constructor(settings: TransportSettings) {
    this.#settings = settings;
  }

  async start(id: number): Promise<Actor> {
    const actor = new Actor(id);
    this.#actors.push(actor);
    await actor.open(this.#settings);
    return actor;
  }

  async pair(): Promise<readonly [Actor, Actor]> {
    const [one, two] = await Promise.all([this.start(1), this.start(2)]);
    await one.meet(two);
    return [one, two];
  }

  async end(): Promise<void> {
    await Promise.all(this.#actors.map((actor) => actor.kill()));
  }
}

/** Runs one check with processes of its own. */
export async function runCheck(check: TransportCheck, settings: TransportSettings): Promise<void> {
  const lab = new TransportLab(settings);
  try {
    await check.run(lab);
  } finally {
    await lab.end();
  }
}
