/**
 * What happened to one replica, numbered, in a file that outlives its agent: one JSON object a line. Guarantees: the
 * numbers go on where an earlier agent ended; memory and disk stay bounded; a full disk costs events, never the agent.
 */
import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs';
import type { EngineEvent } from './engine-protocol.ts';

const keptMax = 1000;
const fileBytesMax = 1 << 20;

export interface AgentEvent extends EngineEvent {
  readonly number: number;
  /** When, in UTC, ISO 8601. */
  readonly time: string;
}

export class EventLog {
  readonly #file: string;
  readonly #events: AgentEvent[];
  #number: number;

  constructor(file: string) {
    this.#file = file;
    this.#events = [...readEvents(`${file}.1`), ...readEvents(file)].slice(-keptMax);
    this.#number = this.#events.at(-1)?.number ?? 0;
  }

  /** Oldest first. */
  get events(): readonly AgentEvent[] {
    return this.#events;
  }

  /** The newest one of this name. */
  last(name: string): AgentEvent | undefined {
    return this.#events.findLast((event) => event.name === name);
  }

  add(event: EngineEvent): AgentEvent {
    const numbered = { ...event, number: ++this.#number, time: new Date().toISOString() };
    this.#events.push(numbered);
    if (this.#events.length > keptMax) this.#events.shift();
    try {
      appendFileSync(this.#file, `${JSON.stringify(numbered)}\n`, { mode: 0o600 });
      if (statSync(this.#file).size > fileBytesMax) renameSync(this.#file, `${this.#file}.1`);
    } catch {
      // It stays in memory; the agent's own log tells it, too.
    }
    return numbered;
  }
}

/** Of a file; one that is not there has none, and a line that a crash cut is none. */
export function readEvents(file: string): AgentEvent[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    try {
      const event = JSON.parse(line) as Partial<AgentEvent>;
      return typeof event.number === 'number' && typeof event.name === 'string' ? [event as AgentEvent] : [];
    } catch {
      return [];
    }
  });
}
