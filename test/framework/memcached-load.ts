/**
 * Verifying memcached clients:
 *
 *   node dist/test/framework/memcached-load.js HOST PORT CONNECTIONS
 *
 * Each connection stays open and owns its keys: it sets a key, then reads a key of its own, and what it reads must
 * be what was acknowledged last.
 */
import { connect, type Socket } from 'node:net';
import { runLoad, type LoadClient } from './load-program.ts';

const keysPerConnection = 32;

class VerifyingClient implements LoadClient {
  operations = 0;
  readonly errors: string[] = [];
  readonly wrongValues: string[] = [];
  readonly replyMs: number[] = [];
  readonly #socket: Socket;
  readonly #name: string;
  readonly #acknowledged = new Map<string, string>();
  #received = '';
  #wake: () => void = () => undefined;
  #stopping = false;

  constructor(host: string, port: number, number: number) {
    this.#name = `c${number}`;
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (text: string) => {
      this.#received += text;
      this.#wake();
    });
    const fail = (what: string) => {
      if (!this.#stopping) this.errors.push(`${this.#name} ${what} after ${this.operations} operations`);
      this.#stopping = true;
      this.#wake();
    };
    this.#socket.on('error', (error) => fail(error.message));
    this.#socket.on('close', () => fail('was closed by the server'));
  }

  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<void> {
    for (let turn = 0; !this.#stopping; turn++) {
      await this.#set(`${this.#name}-${turn % keysPerConnection}`, `value ${turn} of ${this.#name}`);
      await this.#get(`${this.#name}-${(turn * 7) % keysPerConnection}`);
    }
    this.#stopping = true;
    this.#socket.destroy();
  }

  async #set(key: string, value: string): Promise<void> {
    const reply = await this.#ask(`set ${key} 0 0 ${value.length}\r\n${value}\r\n`, (text) =>
      text.endsWith('\r\n'),
    );
    if (reply === undefined) return;
    if (reply === 'STORED\r\n') this.#acknowledged.set(key, value);
    else this.errors.push(`${this.#name} set ${key} was answered "${reply.trim()}"`);
  }

  async #get(key: string): Promise<void> {
    const reply = await this.#ask(`get ${key}\r\n`, (text) => text.endsWith('END\r\n'));
    if (reply === undefined) return;
    const value = this.#acknowledged.get(key);
    const expected =
      value === undefined ? 'END\r\n' : `VALUE ${key} 0 ${value.length}\r\n${value}\r\nEND\r\n`;
    if (reply !== expected)
      this.wrongValues.push(`${key}: read ${JSON.stringify(reply)}, acknowledged ${JSON.stringify(value)}`);
  }

  /** The reply, or undefined when the connection broke. */
  async #ask(request: string, isWhole: (text: string) => boolean): Promise<string | undefined> {
    const asked = performance.now();
    this.#socket.write(request);
    while (!isWhole(this.#received)) {
      if (this.errors.length > 0 || this.#socket.destroyed) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const reply = this.#received;
    this.#received = '';
    this.operations++;
    this.replyMs.push(performance.now() - asked);
    return reply;
  }
}

const [host = '', port = '', connections = ''] = process.argv.slice(2);
await runLoad(
  Array.from({ length: Number(connections) }, (_, number) => new VerifyingClient(host, Number(port), number)),
);
