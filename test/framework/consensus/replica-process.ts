/** A replica of a Falcon log in a process of its own (replica-main.ts), as the test that started it sees it. */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { projectFolder } from '../../../vmm/io/project-folder.ts';
import type { NetworkNamespace } from '../network-namespace.ts';
import type { ReplicaCommand, ReplicaEvent, ReplicaStart } from './replica-main.ts';

export class ReplicaProcess {
  readonly id: number;
  readonly events: ReplicaEvent[] = [];
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  #onEvent: () => void = () => undefined;
  #serves = false;

  constructor(start: ReplicaStart, host: NetworkNamespace) {
    this.id = start.self;
    const program = join(projectFolder(), 'dist/test/framework/consensus/replica-main.js');
    const [command, args] = host.inside(process.execPath, [program, JSON.stringify(start)]);
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const event = JSON.parse(line) as ReplicaEvent;
      if (event.event === 'role') this.#serves = event.serves;
      this.events.push(event);
      this.#onEvent();
    });
  }

  /** May append records now, as far as its last event tells. */
  get serves(): boolean {
    return this.#serves;
  }

  /** What it committed, in order. */
  get committed(): readonly string[] {
    return this.events.flatMap((event) => (event.event === 'committed' ? [event.text] : []));
  }

  command(command: ReplicaCommand): void {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
  }

  /** Until `condition` holds after some event of this replica. */
  async until(what: string, condition: () => boolean, limitMs = 20_000): Promise<void> {
    const endMs = performance.now() + limitMs;
    while (!condition()) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0)
        throw new Error(
          `Replica ${this.id}: ${what} did not come in ${limitMs} ms; last events ${JSON.stringify(this.events.slice(-8))}`,
        );
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#onEvent = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}
