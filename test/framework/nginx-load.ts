/**
 * Verifying clients of the nginx image:
 *
 *   node dist/test/framework/nginx-load.js HOST PORT CONNECTIONS
 *
 * Each keeps one HTTP connection open and asks in turn for the page, 64 KiB, a piece of 2 MiB and something that is
 * not there. Status and every byte must be what the image was built from.
 */
import { join } from 'node:path';
import { loadRecipe } from '../../images/index.ts';
import { projectFolder } from '../../vmm/io/project-folder.ts';
import { runLoad } from './load-program.ts';
import { StreamClient } from './stream-client.ts';

const { files } = await loadRecipe(join(projectFolder(), 'images/recipes/nginx.json'));

function contentsOf(path: string): string {
  const file = files.find((candidate) => candidate.path === `srv/www/${path}`);
  if (file === undefined) throw new Error(`The nginx image has no ${path}`);
  return file.contents.toString('latin1');
}

const page = contentsOf('index.html');
const bytes64k = contentsOf('64k.bin');
const bytes2m = contentsOf('2m.bin');
const pieceBytes = 10_000;

class NginxClient extends StreamClient {
  readonly #host: string;

  constructor(host: string, port: number, number: number) {
    super(host, port, `c${number}`);
    this.#host = host;
  }

  protected override async turn(turn: number): Promise<void> {
    await this.#get('/', 200, page);
    await this.#get('/64k.bin', 200, bytes64k);
    const from = (turn * 7919) % (bytes2m.length - pieceBytes);
    const piece = bytes2m.slice(from, from + pieceBytes);
    await this.#get('/2m.bin', 206, piece, `range: bytes=${from}-${from + pieceBytes - 1}\r\n`);
    await this.#get('/absent', 404);
  }

  async #get(path: string, status: number, body?: string, headers = ''): Promise<void> {
    const request = `GET ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${headers}\r\n`;
    const answer = await this.ask(request, (text) => bodyOf(text) !== undefined);
    if (answer === undefined) return;
    const line = answer.slice(0, answer.indexOf('\r\n'));
    if (!line.startsWith(`HTTP/1.1 ${status} `))
      this.errors.push(`${this.name} ${path} was answered "${line}"`);
    else if (body !== undefined && bodyOf(answer) !== body)
      this.wrongValues.push(`${path}: ${bodyOf(answer)?.length ?? 0} bytes that are not its own`);
  }
}

/** Undefined until it is complete. */
function bodyOf(answer: string): string | undefined {
  const end = answer.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const length = Number(/content-length: (\d+)/i.exec(answer.slice(0, end))?.[1]);
  return answer.length < end + 4 + length ? undefined : answer.slice(end + 4);
}

const [host = '', port = '', connections = ''] = process.argv.slice(2);
await runLoad(
  Array.from({ length: Number(connections) }, (_, number) => new NginxClient(host, Number(port), number)),
);
