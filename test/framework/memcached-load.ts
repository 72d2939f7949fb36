/**
 * Verifying memcached clients:
 *
 *   node dist/test/framework/memcached-load.js HOST PORT CONNECTIONS
 *
 * Each connection stays open and owns its keys: it sets a key, then reads a key of its own, and what it reads must
 * be what was acknowledged last.
 */
import { runLoad } from './load-program.ts';
import { StreamClient } from './stream-client.ts';

const keysPerConnection = 32;

class MemcachedClient extends StreamClient {
  readonly #acknowledged = new Map<string, string>();

  protected override async turn(turn: number): Promise<void> {
    await this.#set(`${this.name}-${turn % keysPerConnection}`, `value ${turn} of ${this.name}`);
    await this.#get(`${this.name}-${(turn * 7) % keysPerConnection}`);
  }

  async #set(key: string, value: string): Promise<void> {
    const request = `set ${key} 0 0 ${value.length}\r\n${value}\r\n`;
    const reply = await this.ask(request, (text) => text.endsWith('\r\n'));
    if (reply === undefined) return;
    if (reply === 'STORED\r\n') this.#acknowledged.set(key, value);
    else this.errors.push(`${this.name} set ${key} was answered "${reply.trim()}"`);
  }

  async #get(key: string): Promise<void> {
    const reply = await this.ask(`get ${key}\r\n`, (text) => text.endsWith('END\r\n'));
    if (reply === undefined) return;
    const value = this.#acknowledged.get(key);
    const expected =
      value === undefined ? 'END\r\n' : `VALUE ${key} 0 ${value.length}\r\n${value}\r\nEND\r\n`;
    if (reply !== expected)
      this.wrongValues.push(`${key}: read ${JSON.stringify(reply)}, acknowledged ${JSON.stringify(value)}`);
  }
}

const [host = '', port = '', connections = ''] = process.argv.slice(2);
await runLoad(
  Array.from({ length: Number(connections) }, (_, number) => {
    // Another process may have left values in the same guest.
    return new MemcachedClient(host, Number(port), `p${process.pid}c${number}`);
  }),
);
