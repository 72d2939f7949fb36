// A key-value store over HTTP in a SQLite database: PUT /KEY stores the body and answers 204 once the
// transaction is committed, GET /KEY answers with it or 404, GET / with the number of keys.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';

// Debian's modules lie in folders that only require() searches.
const { Database } = createRequire(import.meta.url)('sqlite3');

const port = 8080;
const bodyBytesMax = 1 << 20;
const database = new Database('/var/lib/store/store.db');

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/octet-stream' });
  response.end(body);
}

function read(key, response) {
  database.get('SELECT value FROM store WHERE key = ?', [key], (error, row) => {
    if (error) answer(response, 500, error.message);
    else if (row) answer(response, 200, row.value);
    else answer(response, 404, 'no such key');
  });
}

function count(response) {
  database.get('SELECT count(*) AS keys FROM store', (error, row) => {
    if (error) answer(response, 500, error.message);
    else answer(response, 200, String(row.keys));
  });
}

function write(key, request, response) {
  const chunks = [];
  let bytes = 0;
  request.on('data', (chunk) => {
    bytes += chunk.length;
    if (bytes <= bodyBytesMax) chunks.push(chunk);
  });
  request.on('end', () => {
    if (bytes > bodyBytesMax) {
      answer(response, 413, 'values are limited to 1 MiB');
      return;
    }
    const statement =
      'INSERT INTO store VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value';
    database.run(statement, [key, Buffer.concat(chunks)], (error) => {
      if (error) answer(response, 500, error.message);
      else answer(response, 204);
    });
  });
}

const server = createServer((request, response) => {
  const key = request.url.slice(1);
  if (request.method === 'PUT' && key !== '') write(key, request, response);
  else if (request.method === 'GET' && key !== '') read(key, response);
  else if (request.method === 'GET') count(response);
  else answer(response, 405, 'use GET or PUT /KEY');
});

database.exec(
  'CREATE TABLE IF NOT EXISTS store (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID',
  (error) => {
    if (error) throw error;
    server.listen(port, '0.0.0.0');
  },
);
