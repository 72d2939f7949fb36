/**
 * One long download over HTTP whose bytes are verified:
 *
 *   node dist/test/framework/download-load.js HOST PORT PATH SHA256
 *
 * The server is asked for a slow file, so that one answer spans failures of its host. A further one begins when one
 * is complete; the one under way at the end is awaited.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { runLoad, type LoadClient } from './load-program.ts';

class Download implements LoadClient {
  operations = 0;
  readonly errors: string[] = [];
  readonly wrongValues: string[] = [];
  readonly replyMs: number[] = [];
  readonly #url: string;
  readonly #sha256: string;
  #stopping = false;

  constructor(url: string, sha256: string) {
    this.#url = url;
    this.#sha256 = sha256;
  }

  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<void> {
    do {
      try {
        await this.#download();
      } catch (error) {
        this.errors.push(`download ${this.operations}: ${(error as Error).message}`);
      }
    } while (!this.#stopping && this.errors.length === 0);
  }

  async #download(): Promise<void> {
    const asked = performance.now();
    const [incoming] = (await once(get(this.#url, { agent: false }), 'response')) as [IncomingMessage];
    if (incoming.statusCode !== 200) throw new Error(`answered ${incoming.statusCode ?? 0}`);
    // It serves: the first of several thousand pieces has come.
    this.operations++;
    const hash = createHash('sha256');
    let bytes = 0;
    let last = asked;
    for await (const chunk of incoming) {
      hash.update(chunk as Buffer);
      bytes += (chunk as Buffer).length;
      const now = performance.now();
      this.replyMs.push(now - last);
      last = now;
    }
    const sha256 = hash.digest('hex');
    if (sha256 !== this.#sha256) this.wrongValues.push(`${bytes} bytes with SHA-256 ${sha256}`);
  }
}

const [host = '', port = '', path = '', sha256 = ''] = process.argv.slice(2);
await runLoad([new Download(`http://${host}:${port}${path}`, sha256)]);
