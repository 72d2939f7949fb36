/**
 * The agent's control API: JSON over HTTP on a Unix socket that only its user can open. Guarantees: an unknown
 * request is a 404 with a text, a failing one a 500; nothing a client sends ends the agent.
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import { GaiaError } from '../core/errors.ts';

/** By method and path. What it resolves with is sent as JSON; a `PlainText` as it is. */
export type Handlers = Readonly<Record<string, (query: URLSearchParams) => Promise<unknown>>>;

export class PlainText {
  readonly text: string;
  readonly contentType: string;

  constructor(text: string, contentType: string) {
    this.text = text;
    this.contentType = contentType;
  }
}

class AgentUnreachableError extends GaiaError {
  constructor(socket: string, cause: unknown) {
    super('GAIA_AGENT_UNREACHABLE', `No agent answers at ${socket}`, { cause });
  }
}

export class ControlServer {
  readonly #path: string;
  readonly #server: Server;

  constructor(path: string, handlers: Handlers) {
    this.#path = path;
    this.#server = createServer((incoming, response) => {
      const [path = '', query = ''] = (incoming.url ?? '').split('?', 2);
      const requested = `${incoming.method ?? ''} ${path}`;
      const handler = Object.hasOwn(handlers, requested) ? handlers[requested] : undefined;
      const answer = (status: number, body: unknown) => {
        const plain = body instanceof PlainText;
        response.writeHead(status, { 'content-type': plain ? body.contentType : 'application/json' });
        response.end(plain ? body.text : `${JSON.stringify(body)}\n`);
      };
      if (handler === undefined) {
        answer(404, { error: `No such request: ${requested}` });
        return;
      }
      handler(new URLSearchParams(query)).then(
        (body) => answer(200, body),
        (error: unknown) => answer(500, { error: error instanceof Error ? error.message : String(error) }),
      );
    });
  }

  async listen(): Promise<void> {
    rmSync(this.#path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#path, resolve);
    });
    chmodSync(this.#path, 0o600);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** One request to an agent, answered in JSON. Throws `AgentUnreachableError` when none answers in time. */
export function controlRequest(
  socket: string,
  method: 'GET' | 'POST',
  path: string,
  timeoutMs: number,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath: socket, method, path, timeout: timeoutMs, agent: false },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => (text += part));
        response.on('end', () => {
          try {
            if (response.statusCode !== 200) throw new Error(text.trim());
            resolve(JSON.parse(text));
          } catch (error) {
            reject(new AgentUnreachableError(socket, error));
          }
        });
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    outgoing.on('error', (error) => {
      reject(new AgentUnreachableError(socket, error));
    });
    outgoing.end();
  });
}
