/** A verifying client on one TCP connection that stays open: what its protocols have in common. */
import { connect, type Socket } from 'node:net';
import type { LoadClient } from './load-program.ts';

export abstract class StreamClient implements LoadClient {
  readonly name: string;
  operations = 0;
  readonly errors: string[] = [];
  readonly wrongValues: string[] = [];
  readonly replyMs: number[] = [];
  readonly #socket: Socket;
  #received = '';
  #wake: () => void = () => undefined;
  #stopping = false;

  constructor(host: string, port: number, name: string) {
    this.name = name;
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (text: string) => {
      this.#received += text;
      this.#wake();
    });
    const fail = (what: string) => {
      if (!this.#stopping) this.errors.push(`${this.name} ${what} after ${this.operations} operations`);
      this.#stopping = true;
      this.#wake();
    };
    this.#socket.on('error', (error) => fail(error.message));
    this.#socket.on('close', () => fail('was closed by the server'));
  }

  /** Ends after the turn under way. */
  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<void> {
    for (let turn = 0; !this.#stopping && this.#isContent; turn++) await this.turn(turn);
    this.#stopping = true;
    this.#socket.destroy();
  }

  /** What went wrong once would go wrong for ever. */
  get #isContent(): boolean {
    return this.errors.length === 0 && this.wrongValues.length === 0;
  }

  /** A few requests and the checks of their replies. */
  protected abstract turn(turn: number): Promise<void>;

  /** The whole reply to `request`, one character a byte; undefined when the connection broke. */
  protected async ask(request: string, isWhole: (text: string) => boolean): Promise<string | undefined> {
    const asked = performance.now();
    this.#socket.write(request, 'latin1');
    while (!isWhole(this.#received)) {
      if (!this.#isContent) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const reply = this.#received;
    this.#received = '';
    this.operations++;
    this.replyMs.push(performance.now() - asked);
    return reply;
  }
}
