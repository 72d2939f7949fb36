/**
 * etcd, three members on loopback, and a client that stays close to the wire: gRPC's Put (etcdserverpb.KV/Put) on one
 * HTTP/2 connection, messages encoded by hand, so that little of the time measured is the client's.
 */
import { spawnSync } from 'node:child_process';
import { connect, constants, type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2';
import { once } from 'node:events';
import { join } from 'node:path';
import { freePorts, PeerProcesses } from './peer-processes.ts';
import type { PeerCluster } from './peer.ts';

const members = 3;

export function etcdVersion(): string | undefined {
  const { status, stdout } = spawnSync('etcd', ['--version'], { encoding: 'utf8' });
  return status === 0 ? /etcd Version: (\S+)/.exec(stdout)?.[1] : undefined;
}

export async function startEtcd(folder: string, fsync: boolean, signal: AbortSignal): Promise<PeerCluster> {
  const ports = await freePorts(2 * members);
  const clientPort = (member: number): number => ports[member] ?? 0;
  const peerUrl = (member: number): string => `http://127.0.0.1:${ports[members + member] ?? 0}`;
  const cluster = Array.from({ length: members }, (_, member) => `m${member}=${peerUrl(member)}`).join(',');
  const processes = new PeerProcesses();
  try {
    for (let member = 0; member < members; member++) {
      const clientUrl = `http://127.0.0.1:${clientPort(member)}`;
      processes.start('etcd', [
        ...['--name', `m${member}`, '--data-dir', join(folder, `etcd${member}`)],
        ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
        ...['--listen-peer-urls', peerUrl(member), '--initial-advertise-peer-urls', peerUrl(member)],
        ...['--initial-cluster', cluster, '--initial-cluster-state', 'new', '--log-level', 'error'],
        ...(fsync ? [] : ['--unsafe-no-fsync']),
      ]);
    }
    for (let member = 0; member < members; member++) await processes.untilListens(clientPort(member), signal);
    const leader = await leaderOf(clientPort, signal);
    const session = connect(`http://127.0.0.1:${clientPort(leader)}`);
    return {
      put: (value) => put(session, value),
      stop: async () => {
        session.destroy();
        await processes.stop();
      },
    };
  } catch (error) {
    await processes.stop();
    throw error;
  }
}

/** The client speaks to the leader, as a client that cares for latency would. */
async function leaderOf(clientPort: (member: number) => number, signal: AbortSignal): Promise<number> {
  for (;;) {
    signal.throwIfAborted();
    for (let member = 0; member < members; member++) {
      const answer = await fetch(`http://127.0.0.1:${clientPort(member)}/v3/maintenance/status`, {
        method: 'POST',
        body: '{}',
        signal,
      });
      const status = (await answer.json()) as { leader?: string; header?: { member_id?: string } };
      if (status.leader !== undefined && status.leader === status.header?.member_id) return member;
    }
  }
}

/** PutRequest { bytes key = 1; bytes value = 2 } in gRPC's frame: u8 compressed, u32 length. */
function putFrame(value: Uint8Array): Buffer {
  const key = Buffer.from('bench');
  const message = Buffer.concat([
    Buffer.from([0x0a, key.length]),
    key,
    Buffer.from([0x12]),
    varint(value.length),
    value,
  ]);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return Buffer.from([...bytes, value]);
}

async function put(session: ClientHttp2Session, value: Uint8Array): Promise<void> {
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: '/etcdserverpb.KV/Put',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let status: unknown;
  stream.on('trailers', (trailers: IncomingHttpHeaders) => (status = trailers['grpc-status']));
  stream.on('response', (headers: IncomingHttpHeaders) => (status ??= headers['grpc-status']));
  stream.resume();
  stream.end(putFrame(value));
  await once(stream, 'end');
  if (status !== '0') throw new Error(`etcd refused a put with status ${String(status)}`);
}
