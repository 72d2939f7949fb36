import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { controlRequest, ControlServer, PlainText } from './control-api.ts';

let folder: string;
let socket: string;
let server: ControlServer;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-api-'));
  socket = join(folder, 'agent.sock');
  server = new ControlServer(socket, {
    'GET /v1/echo': (query) => Promise.resolve({ said: query.get('say') }),
    'GET /v1/broken': () => Promise.reject(new Error('it is broken')),
    'GET /metrics': () => Promise.resolve(new PlainText('figures 1\n', 'text/plain')),
  });
  await server.listen();
});

afterEach(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

function raw(path: string): Promise<{ status: number | undefined; type: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath: socket, path, agent: false }, (response) => {
      let text = '';
      response.on('data', (part: Buffer) => (text += part.toString()));
      response.on('end', () => {
        resolve({ status: response.statusCode, type: response.headers['content-type'], text });
      });
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

it('answers in JSON, takes words from the query, and is open to its user only', async () => {
  expect(await controlRequest(socket, 'GET', '/v1/echo?say=a%20b', 1000)).toEqual({ said: 'a b' });
  expect(statSync(socket).mode & 0o777).toBe(0o600);
});

it('sends plain text as it is', async () => {
  expect(await raw('/metrics')).toEqual({ status: 200, type: 'text/plain', text: 'figures 1\n' });
});

it('an unknown request is a 404, a failing one a 500, and neither is taken for an answer', async () => {
  expect((await raw('/v1/none')).status).toBe(404);
  expect((await raw('/constructor')).status).toBe(404);
  expect(await raw('/v1/broken')).toMatchObject({ status: 500, text: '{"error":"it is broken"}\n' });
  await expect(controlRequest(socket, 'GET', '/v1/broken', 1000)).rejects.toThrow(/No agent answers/);
  await expect(controlRequest(socket, 'POST', '/v1/echo', 1000)).rejects.toThrow(/No agent answers/);
});
