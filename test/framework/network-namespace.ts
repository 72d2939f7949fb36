/**
 * A network namespace of a test's own, with taps in it, so that nothing a test sends leaves it.
 * Guarantee: it is removed by `remove`, and at the end of the process at the latest.
 */

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { execa } from 'execa';

let created = 0;

export class NetworkNamespace {
  readonly name: string;
  readonly #removeAtExit: () => void;

  private constructor(name: string) {
    this.name = name;
    this.#removeAtExit = () => void spawnSync('ip', ['netns', 'delete', name]);
    process.once('exit', this.#removeAtExit);
  }

  /** Why this machine cannot make one; undefined when it can. */
  static whyImpossible(): string | undefined {
    if (process.getuid?.() !== 0) return 'network namespaces need root';
    if (spawnSync('ip', ['netns', 'list']).status !== 0) return '"ip netns" does not work: install iproute2';
    return undefined;
  }

  static async create(): Promise<NetworkNamespace> {
    const name = `gaia-test-${process.pid}-${created++}`;
    await execa('ip', ['netns', 'add', name]);
    const namespace = new NetworkNamespace(name);
    await namespace.run('ip', ['link', 'set', 'lo', 'up']);
    return namespace;
  }

  /** The command line that runs `command` inside. The process keeps its id: `ip` becomes the command. */
  inside(command: string, args: readonly string[]): [string, string[]] {
    return ['ip', ['netns', 'exec', this.name, command, ...args]];
  }

  /** Runs `command` to its end and resolves with what it printed. */
  async run(command: string, args: readonly string[]): Promise<string> {
    const { stdout } = await execa(...this.inside(command, args));
    return stdout;
  }

  /** `address` is the host's side of the link, such as 10.0.0.1/24. */
  async addTap(tap: string, address: string): Promise<void> {
    await this.run('ip', ['tuntap', 'add', 'dev', tap, 'mode', 'tap']);
    await this.run('ip', ['address', 'add', address, 'dev', tap]);
    await this.run('ip', ['link', 'set', tap, 'up']);
  }

  async connect(host: string, port: number): Promise<NamespaceConnection> {
    return NamespaceConnection.open(this, host, port);
  }

  /** Ends at once whatever still runs inside, such as a client that nobody answers any more. */
  async endAll(): Promise<void> {
    const { stdout } = await execa('ip', ['netns', 'pids', this.name]);
    for (const pid of stdout.split('\n').filter((line) => line !== '')) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // It has just ended by itself.
      }
    }
  }

  /** What a test that failed has left running inside ends with it. */
  async remove(): Promise<void> {
    process.off('exit', this.#removeAtExit);
    await this.endAll();
    await execa('ip', ['netns', 'delete', this.name]);
  }
}

/** Node cannot enter a namespace itself, so a child process in it passes bytes between socket and pipes. */
const relayProgram = `
const socket = require('node:net').connect(Number(process.argv[2]), process.argv[1], () => {
  process.stderr.write('connected');
  process.stdin.pipe(socket).pipe(process.stdout);
});
socket.on('error', (error) => { process.stderr.write(error.message); process.exit(1); });
`;

/** One TCP connection made inside a namespace. */
export class NamespaceConnection {
  readonly #relay: ChildProcessByStdio<Writable, Readable, Readable>;
  #received = Buffer.alloc(0);
  #failure: Error | undefined;
  #wake: () => void = () => undefined;

  private constructor(relay: ChildProcessByStdio<Writable, Readable, Readable>, peer: string) {
    this.#relay = relay;
    relay.stdout.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake();
    });
    relay.stdout.on('end', () => this.#fail(new Error(`${peer} closed the connection`)));
    relay.stdin.on('error', (error) => this.#fail(error));
  }

  static async open(namespace: NetworkNamespace, host: string, port: number): Promise<NamespaceConnection> {
    const [command, args] = namespace.inside(process.execPath, ['-e', relayProgram, host, String(port)]);
    const relay = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const connection = new NamespaceConnection(relay, `${host}:${port}`);
    const [first] = (await once(relay.stderr, 'data')) as [Buffer];
    if (first.toString() !== 'connected')
      throw new Error(`${host}:${port} cannot be reached: ${first.toString()}`);
    return connection;
  }

  write(data: string | Buffer): void {
    this.#relay.stdin.write(data);
  }

  /** Resolves with all bytes received so far once `isComplete` says so, and forgets them. */
  async receive(isComplete: (received: Buffer) => boolean): Promise<Buffer> {
    while (!isComplete(this.#received)) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const received = this.#received;
    this.#received = Buffer.alloc(0);
    return received;
  }

  async close(): Promise<void> {
    if (this.#relay.exitCode !== null || this.#relay.signalCode !== null) return;
    const exited = once(this.#relay, 'exit');
    this.#relay.kill('SIGKILL');
    await exited;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake();
  }
}
