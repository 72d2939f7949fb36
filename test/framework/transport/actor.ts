/** A process with one end of a transport (process-main.ts), as the test that started it sees it. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectFolder } from '../../../vmm/io/project-folder.ts';
import type { TransportSettings } from '../../../vmm/io/transport/open.ts';
import type { PeerCard } from '../../../vmm/io/transport/transport.ts';

interface Answer {
  readonly call?: number;
  readonly waiting?: boolean;
  readonly result?: unknown;
  readonly failure?: { readonly message: string; readonly code?: string };
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Actor {
  /** As which replica it opens its transport. */
  id: number;
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, Waiting>();
  #onWaiting: () => void = () => undefined;
  #lastCall = 0;

  constructor(id: number) {
    this.id = id;
    this.#child = fork(join(projectFolder(), 'dist/test/framework/transport/process-main.js'), [], {
      serialization: 'advanced',
    });
    this.#child.on('message', (answer: Answer) => {
      this.#take(answer);
    });
    this.#child.on('exit', (code, signal) => {
      for (const { reject } of this.#calls.values())
        reject(new Error(`Replica ${this.id} ended with ${signal ?? `code ${code ?? -1}`}`));
      this.#calls.clear();
    });
  }

  #take({ call, waiting, result, failure }: Answer): void {
    if (waiting === true) this.#onWaiting();
    const caller = call === undefined ? undefined : this.#calls.get(call);
    if (caller === undefined || call === undefined) return;
    this.#calls.delete(call);
    if (failure === undefined) caller.resolve(result);
    else caller.reject(Object.assign(new Error(failure.message), { code: failure.code }));
  }

  call(method: string, ...args: readonly unknown[]): Promise<unknown> {
    const call = ++this.#lastCall;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#child.send({ call, method, args }, (error) => {
        if (error !== null) reject(error);
      });
    });
  }

  open(settings: TransportSettings): Promise<unknown> {
    return this.call('open', this.id, settings);
  }

  /** Makes a session between the two, new on both sides. */
  async meet(other: Actor): Promise<void> {
    const [mine, others] = (await Promise.all([
      this.call('invite', other.id),
      other.call('invite', this.id),
    ])) as [PeerCard, PeerCard];
    await Promise.all([this.call('connect', other.id, others), other.call('connect', this.id, mine)]);
  }

  /** A region here for `writer`, and the writer's end of it. */
  async regionFor(writer: Actor): Promise<{ readonly reader: number; readonly writer: number }> {
    const { reader, key } = (await this.call('openRegion', writer.id)) as { reader: number; key: string };
    return { reader, writer: (await writer.call('attachRegion', this.id, key)) as number };
  }

  /** Resolves with the answer, once the process is about to wait: `arrive` makes what it waits for. */
  async wakes(method: readonly unknown[], arrive: () => Promise<unknown>): Promise<number> {
    const aboutToWait = new Promise<void>((resolve) => {
      this.#onWaiting = resolve;
    });
    const answer = this.call('waitForWake', ...method) as Promise<number>;
    await aboutToWait;
    await this.#blocks();
    await arrive();
    return await answer;
  }

  /** Until the process sleeps: nothing but an arrival, or its limit, ends that. */
  async #blocks(): Promise<void> {
    while (!/^\d+ \(.*\) S /.test(readFileSync(`/proc/${this.pid}/stat`, 'utf8')))
      await new Promise((resolve) => setImmediate(resolve));
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  get #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Closes its transport. False: the process has ended, or is still busy. */
  async reset(): Promise<boolean> {
    if (this.#hasEnded || this.#calls.size > 0) return false;
    try {
      return (await this.call('reset')) === true;
    } catch {
      return false;
    }
  }

  /** SIGKILL, and its end. */
  async kill(): Promise<void> {
    if (this.#hasEnded) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}
