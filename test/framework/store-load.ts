/**
 * Verifying clients of the node-sqlite image:
 *
 *   node dist/test/framework/store-load.js HOST PORT CONNECTIONS
 *
 * Each keeps one HTTP connection open and owns its keys: it stores a value, then reads a key of its own, and what it
 * reads must be what was acknowledged last. A second connection, a reset or any status that is not asked for is an
 * error.
 */
import { Agent, request } from 'node:http';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { runLoad, type LoadClient } from './load-program.ts';

const keysPerConnection = 16;

interface Answer {
  readonly status: number;
  readonly body: string;
}

class StoreClient implements LoadClient {
  operations = 0;
  readonly errors: string[] = [];
  readonly wrongValues: string[] = [];
  readonly replyMs: number[] = [];
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #host: string;
  readonly #port: number;
  readonly #name: string;
  readonly #acknowledged = new Map<string, string>();
  #localPort: number | undefined;
  #stopping = false;

  constructor(host: string, port: number, number: number) {
    this.#host = host;
    this.#port = port;
    this.#name = `c${number}`;
  }

  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<void> {
    for (let turn = 0; !this.#stopping && this.errors.length === 0; turn++) {
      try {
        await this.#put(`${this.#name}-${turn % keysPerConnection}`, `value ${turn} of ${this.#name}`);
        await this.#get(`${this.#name}-${(turn * 7) % keysPerConnection}`);
      } catch (error) {
        this.errors.push(`${this.#name} after ${this.operations} operations: ${(error as Error).message}`);
      }
    }
    this.#agent.destroy();
  }

  async #put(key: string, value: string): Promise<void> {
    const answer = await this.#ask('PUT', key, value);
    if (answer.status === 204) this.#acknowledged.set(key, value);
    else this.errors.push(`${this.#name} PUT ${key} was answered ${answer.status} ${answer.body}`);
  }

  async #get(key: string): Promise<void> {
    const value = this.#acknowledged.get(key);
    const answer = await this.#ask('GET', key, '');
    const right = value === undefined ? answer.status === 404 : answer.body === value;
    if (!right)
      this.wrongValues.push(`${key}: read ${answer.status} ${answer.body}, acknowledged ${String(value)}`);
  }

  async #ask(method: string, key: string, body: string): Promise<Answer> {
    const asked = performance.now();
    const outgoing = request({
      agent: this.#agent,
      host: this.#host,
      port: this.#port,
      method,
      path: `/${key}`,
      headers: { 'content-length': Buffer.byteLength(body) },
    });
    outgoing.end(body);
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
    this.#sameConnection(incoming.socket.localPort);
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    this.operations++;
    this.replyMs.push(performance.now() - asked);
    return { status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString() };
  }

  #sameConnection(localPort: number | undefined): void {
    this.#localPort ??= localPort;
    if (localPort !== this.#localPort) throw new Error('the connection was replaced by another');
  }
}

const [host = '', port = '', connections = ''] = process.argv.slice(2);
await runLoad(
  Array.from({ length: Number(connections) }, (_, number) => new StoreClient(host, Number(port), number)),
);
