/**
 * Verifying redis clients:
 *
 *   node dist/test/framework/redis-load.js HOST PORT CONNECTIONS [VALUE-BYTES]
 *
 * Each connection stays open and owns its keys: it sets a key, reads a key of its own, whose value must be what was
 * acknowledged last, and counts its turns in the server, which must never miss one.
 */
import { StreamClient } from './stream-client.ts';
import { runLoad } from './load-program.ts';

const keysPerConnection = 32;

class RedisClient extends StreamClient {
  readonly #valueBytes: number;
  readonly #acknowledged = new Map<string, string>();
  #turns = 0;

  constructor(host: string, port: number, number: number, valueBytes: number) {
    super(host, port, `c${number}`);
    this.#valueBytes = valueBytes;
  }

  protected override async turn(turn: number): Promise<void> {
    await this.#set(`${this.name}-${turn % keysPerConnection}`, this.#value(turn));
    await this.#get(`${this.name}-${(turn * 7) % keysPerConnection}`);
    await this.#count();
  }

  #value(turn: number): string {
    const value = `value ${turn} of ${this.name} `;
    return value.padEnd(this.#valueBytes, value);
  }

  async #set(key: string, value: string): Promise<void> {
    const reply = await this.#command('SET', key, value);
    if (reply === undefined) return;
    if (reply === '+OK\r\n') this.#acknowledged.set(key, value);
    else this.errors.push(`${this.name} SET ${key} was answered "${reply.trim()}"`);
  }

  async #get(key: string): Promise<void> {
    const reply = await this.#command('GET', key);
    if (reply === undefined) return;
    const value = this.#acknowledged.get(key);
    const expected = value === undefined ? '$-1\r\n' : `$${value.length}\r\n${value}\r\n`;
    if (reply !== expected)
      this.wrongValues.push(`${key}: read ${JSON.stringify(reply)}, acknowledged ${JSON.stringify(value)}`);
  }

  async #count(): Promise<void> {
    const reply = await this.#command('INCR', `${this.name}-turns`);
    if (reply === undefined) return;
    if (reply !== `:${++this.#turns}\r\n`)
      this.wrongValues.push(`${this.name}-turns: ${reply.trim()} in turn ${this.#turns}`);
  }

  async #command(...words: readonly string[]): Promise<string | undefined> {
    const parts = words.map((word) => `$${word.length}\r\n${word}\r\n`);
    return this.ask(`*${words.length}\r\n${parts.join('')}`, isWholeReply);
  }
}

/** A line, or a length and as many bytes. */
function isWholeReply(text: string): boolean {
  const end = text.indexOf('\r\n');
  if (end === -1) return false;
  const length = text.startsWith('$') ? Number(text.slice(1, end)) : -1;
  return length < 0 || text.length === end + 2 + length + 2;
}

const [host = '', port = '', connections = '', valueBytes = '0'] = process.argv.slice(2);
await runLoad(
  Array.from({ length: Number(connections) }, (_, number) => {
    return new RedisClient(host, Number(port), number, Number(valueBytes));
  }),
);
