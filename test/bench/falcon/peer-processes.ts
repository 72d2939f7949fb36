/** Servers of a peer's cluster on loopback, with their data in folders of the bench's own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const startTimeoutMs = 60_000;
const pollMs = 100;

export class PeerProcesses {
  readonly #children: ChildProcess[] = [];
  readonly #killAtExit = (): void => this.#kill();

  constructor() {
    process.once('exit', this.#killAtExit);
  }

  start(command: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): void {
    this.#children.push(spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...environment } }));
  }

  /** Resolves once somebody listens on the port. Throws when a server has ended, or after a minute. */
  async untilListens(port: number, signal: AbortSignal): Promise<void> {
    const began = performance.now();
    while (!(await listens(port))) {
      const dead = this.#children.find(({ exitCode }) => exitCode !== null);
      if (dead !== undefined) throw new Error(`${dead.spawnfile} ended with ${dead.exitCode ?? -1}`);
      if (performance.now() - began > startTimeoutMs) throw new Error(`Nobody listens on port ${port}`);
      await delay(pollMs, undefined, { signal });
    }
  }

  async stop(): Promise<void> {
    process.off('exit', this.#killAtExit);
    const running = this.#children.filter(
      ({ exitCode, signalCode }) => exitCode === null && signalCode === null,
    );
    const ends = running.map((child) => once(child, 'exit'));
    this.#kill();
    await Promise.all(ends);
  }

  #kill(): void {
    for (const child of this.#children) child.kill('SIGKILL');
  }
}

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** So many ports that nobody uses now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
