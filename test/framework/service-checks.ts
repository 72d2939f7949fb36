/** Speaks to the services of our images as their clients do, from inside a network namespace. */

import { createHash } from 'node:crypto';

import type { NamespaceConnection, NetworkNamespace } from './network-namespace.ts';

export interface Endpoint {
  readonly namespace: NetworkNamespace;
  readonly host: string;
  readonly port: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: Buffer;
}

/** Stores a value, reads it back and resolves with it. */
export async function memcachedRoundTrip(endpoint: Endpoint, key: string, value: string): Promise<string> {
  return withConnection(endpoint, async (connection) => {
    connection.write(`set ${key} 0 0 ${Buffer.byteLength(value)}\r\n${value}\r\n`);
    await answerEndingWith(connection, 'STORED\r\n');
    connection.write(`get ${key}\r\n`);
    const answer = await answerEndingWith(connection, 'END\r\n');
    return answer.split('\r\n')[1] ?? '';
  });
}

/** Stores a value, reads it back and resolves with it. */
export async function redisRoundTrip(endpoint: Endpoint, key: string, value: string): Promise<string> {
  return withConnection(endpoint, async (connection) => {
    connection.write(`SET ${key} ${value}\r\n`);
    await answerEndingWith(connection, '+OK\r\n');
    connection.write(`GET ${key}\r\n`);
    const answer = await answerEndingWith(connection, `${value}\r\n`);
    return answer.split('\r\n')[1] ?? '';
  });
}

/** One request on a connection of its own. */
export async function http(
  endpoint: Endpoint,
  method: 'GET' | 'PUT',
  path: string,
  body = '',
): Promise<HttpAnswer> {
  return withConnection(endpoint, async (connection) => {
    const length = Buffer.byteLength(body);
    connection.write(
      `${method} ${path} HTTP/1.1\r\nhost: ${endpoint.host}\r\ncontent-length: ${length}\r\n\r\n${body}`,
    );
    const received = await connection.receive((bytes) => httpAnswerOf(bytes) !== undefined);
    const answer = httpAnswerOf(received);
    if (answer === undefined) throw new Error('The HTTP answer is not complete');
    return answer;
  });
}

/** Undefined until the answer is complete; understands lengths and, for short bodies, chunks. */
function httpAnswerOf(received: Buffer): HttpAnswer | undefined {
  const end = received.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const head = received.toString('latin1', 0, end);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
  const rest = received.subarray(end + 4);
  if (/transfer-encoding: chunked/i.test(head)) {
    const chunk = /^[0-9a-f]+\r\n([^]*)\r\n0\r\n\r\n$/i.exec(rest.toString('latin1'))?.[1];
    return chunk === undefined ? undefined : { status, body: Buffer.from(chunk, 'latin1') };
  }
  const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
  return rest.length < length ? undefined : { status, body: rest.subarray(0, length) };
}

/** Logs in and resolves with the only column of the only row that the query gives. */
export async function mariadbQuery(
  endpoint: Endpoint,
  login: { readonly user: string; readonly password: string; readonly database: string },
  query: string,
): Promise<string> {
  return withConnection(endpoint, async (connection) => {
    const [greeting] = await mariadbPackets(connection, (packets) => packets.length === 1);
    const response = mariadbLogin(scrambleOf(greeting ?? Buffer.alloc(0)), login);
    connection.write(mariadbPacket(1, response));
    const [accepted] = await mariadbPackets(connection, (packets) => packets.length === 1);
    if (accepted?.[0] !== 0) throw new Error(`Login refused: ${accepted?.toString('latin1')}`);
    connection.write(mariadbPacket(0, Buffer.concat([Buffer.from([3]), Buffer.from(query)])));
    // Count of columns, one column, an end marker, one row, an end marker; or one error.
    const packets = await mariadbPackets(connection, (all) => all.length === 5 || all[0]?.[0] === 0xff);
    const row = packets[3];
    if (row === undefined) throw new Error(`Query refused: ${packets[0]?.toString('latin1')}`);
    return row.toString('utf8', 1, 1 + (row[0] ?? 0));
  });
}

/** The random bytes that the greeting carries in two parts, after the version's text. */
function scrambleOf(greeting: Buffer): Buffer {
  const first = greeting.indexOf(0, 1) + 1 + 4;
  const second = first + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10;
  return Buffer.concat([greeting.subarray(first, first + 8), greeting.subarray(second, second + 12)]);
}

function mariadbLogin(
  scramble: Buffer,
  login: { readonly user: string; readonly password: string; readonly database: string },
): Buffer {
  const sha1 = (...parts: Buffer[]): Buffer => createHash('sha1').update(Buffer.concat(parts)).digest();
  const stage = sha1(Buffer.from(login.password));
  const mask = sha1(scramble, sha1(stage));
  const proof = Buffer.from(stage.map((byte, index) => byte ^ (mask[index] ?? 0)));
  const head = Buffer.alloc(32);
  // Long password, with database, protocol 4.1, secure connection, named authentication method.
  head.writeUInt32LE(0x1 | 0x8 | 0x200 | 0x8000 | 0x80000, 0);
  head.writeUInt32LE(1 << 24, 4);
  head.writeUInt8(33, 8);
  return Buffer.concat([
    head,
    Buffer.from(`${login.user}\0`),
    Buffer.from([proof.length]),
    proof,
    Buffer.from(`${login.database}\0mysql_native_password\0`),
  ]);
}

function mariadbPacket(sequence: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUIntLE(payload.length, 0, 3);
  head.writeUInt8(sequence, 3);
  return Buffer.concat([head, payload]);
}

async function mariadbPackets(
  connection: NamespaceConnection,
  isComplete: (packets: readonly Buffer[]) => boolean,
): Promise<Buffer[]> {
  const split = (bytes: Buffer): Buffer[] => {
    const packets: Buffer[] = [];
    for (let offset = 0; offset + 4 <= bytes.length;) {
      const end = offset + 4 + bytes.readUIntLE(offset, 3);
      if (end > bytes.length) break;
      packets.push(bytes.subarray(offset + 4, end));
      offset = end;
    }
    return packets;
  };
  return split(await connection.receive((bytes) => isComplete(split(bytes))));
}

async function answerEndingWith(connection: NamespaceConnection, end: string): Promise<string> {
  return (await connection.receive((bytes) => bytes.toString().endsWith(end))).toString();
}

async function withConnection<T>(
  { namespace, host, port }: Endpoint,
  use: (connection: NamespaceConnection) => Promise<T>,
): Promise<T> {
  const connection = await namespace.connect(host, port);
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}
