/**
 * ZooKeeper, three members on loopback, and a client that speaks its wire protocol (Jute over TCP): one session, one
 * node, setData. Frames are u32 length and big-endian fields.
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { freePorts, PeerProcesses } from './peer-processes.ts';
import type { PeerCluster } from './peer.ts';

const members = 3;
const jarFolder = '/usr/share/java';
const sessionTimeoutMs = 30_000;
const operation = { create: 1, setData: 5 } as const;
const path = '/bench';
const errorNodeExists = -110;

/** By the name of its jar; undefined: not installed. */
export function zookeeperVersion(): string | undefined {
  if (!existsSync(jarFolder)) return undefined;
  const versions = readdirSync(jarFolder).map((name) => /^zookeeper-(\d.*)\.jar$/.exec(name)?.[1]);
  return versions.find((version) => version !== undefined);
}

export async function startZookeeper(
  folder: string,
  fsync: boolean,
  signal: AbortSignal,
): Promise<PeerCluster> {
  const ports = await freePorts(3 * members);
  const processes = new PeerProcesses();
  try {
    for (let member = 0; member < members; member++) {
      const home = join(folder, `zookeeper${member}`);
      await mkdir(home, { recursive: true });
      await writeFile(join(home, 'myid'), `${member + 1}\n`);
      const servers = Array.from(
        { length: members },
        (_, other) =>
          `server.${other + 1}=127.0.0.1:${ports[3 * other + 1] ?? 0}:${ports[3 * other + 2] ?? 0}`,
      );
      const lines = [
        // The times of ZooKeeper's own sample: a member that is late by less is not given up.
        ...['tickTime=2000', 'initLimit=10', 'syncLimit=5', 'admin.enableServer=false'],
        ...[`dataDir=${home}`, `clientPort=${ports[3 * member] ?? 0}`, 'clientPortAddress=127.0.0.1'],
        `forceSync=${fsync ? 'yes' : 'no'}`,
        ...servers,
      ];
      const config = join(home, 'zoo.cfg');
      await writeFile(config, `${lines.join('\n')}\n`);
      processes.start('java', [
        ...['-Xmx256m', '-cp', `${jarFolder}/*`, 'org.apache.zookeeper.server.quorum.QuorumPeerMain', config],
      ]);
    }
    for (let member = 0; member < members; member++)
      await processes.untilListens(ports[3 * member] ?? 0, signal);
    const client = await ZookeeperClient.connect(ports[3 * (members - 1)] ?? 0, signal);
    return {
      put: (value) => client.setData(value),
      stop: async () => {
        client.close();
        await processes.stop();
      },
    };
  } catch (error) {
    await processes.stop();
    throw error;
  }
}

class ZookeeperClient {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #failure: Error | undefined;
  readonly #waiting: ((frame: Buffer | Error) => void)[] = [];
  #number = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
      this.#deliver();
    });
    const fail = (error: Error): void => {
      this.#failure = error;
      for (const wake of this.#waiting.splice(0)) wake(error);
    };
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('ZooKeeper closed the connection')));
  }

  /** Tries until the members have elected a leader: until then they close connections. */
  static async connect(port: number, signal: AbortSignal): Promise<ZookeeperClient> {
    for (;;) {
      signal.throwIfAborted();
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      const client = new ZookeeperClient(socket);
      try {
        await client.#begin();
        return client;
      } catch {
        socket.destroy();
      }
    }
  }

  async setData(value: Uint8Array): Promise<void> {
    const body = Buffer.concat([text(path), bytes(value), int(-1)]);
    await this.#ask(operation.setData, body);
  }

  close(): void {
    this.#socket.destroy();
  }

  async #begin(): Promise<void> {
    const session = Buffer.concat([
      int(0),
      long(0),
      int(sessionTimeoutMs),
      long(0),
      bytes(new Uint8Array(16)),
      Buffer.from([0]),
    ]);
    this.#send(session);
    await this.#frame();
    // World may do everything (31) with it; flags 0: it stays.
    const acl = Buffer.concat([int(1), int(31), text('world'), text('anyone')]);
    const status = await this.#ask(
      operation.create,
      Buffer.concat([text(path), bytes(new Uint8Array(1)), acl, int(0)]),
      errorNodeExists,
    );
    if (status !== 0 && status !== errorNodeExists) throw new Error(`ZooKeeper refused the node: ${status}`);
  }

  async #ask(kind: number, body: Buffer, allowed = 0): Promise<number> {
    this.#send(Buffer.concat([int(++this.#number), int(kind), body]));
    const frame = await this.#frame();
    const status = frame.readInt32BE(12); // After the request's number and the transaction's.
    if (status !== 0 && status !== allowed) throw new Error(`ZooKeeper answered with error ${status}`);
    return status;
  }

  #send(body: Buffer): void {
    this.#socket.write(Buffer.concat([int(body.length), body]));
  }

  async #frame(): Promise<Buffer> {
    if (this.#failure !== undefined) throw this.#failure;
    const frame = await new Promise<Buffer | Error>((resolve) => this.#waiting.push(resolve));
    if (frame instanceof Error) throw frame;
    return frame;
  }

  #deliver(): void {
    while (this.#received.length >= 4) {
      const length = this.#received.readInt32BE(0);
      if (this.#received.length < 4 + length) return;
      const frame = this.#received.subarray(4, 4 + length);
      this.#received = this.#received.subarray(4 + length);
      this.#waiting.shift()?.(frame);
    }
  }
}

function int(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
}

function long(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(BigInt(value));
  return buffer;
}

function bytes(value: Uint8Array): Buffer {
  return Buffer.concat([int(value.length), value]);
}

function text(value: string): Buffer {
  return bytes(Buffer.from(value));
}
