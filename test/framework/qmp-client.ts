/** Asks a QEMU over its QMP socket: the way to QEMU's own view of a guest, independent of the gaia port. */
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';

interface QmpReply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
}

export class QmpClient {
  /** Names of the events that came before the last answer. */
  readonly events: string[] = [];
  readonly #socket: Socket;
  readonly #interface: Interface;
  readonly #lines: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#interface = createInterface({ input: socket });
    this.#lines = this.#interface[Symbol.asyncIterator]();
  }

  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    const client = new QmpClient(socket);
    await client.#lines.next(); // The greeting.
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Resolves with what the command returns; rejects with QEMU's words. */
  async execute(command: string, commandArguments: object = {}): Promise<unknown> {
    this.#socket.write(JSON.stringify({ execute: command, arguments: commandArguments }));
    for (;;) {
      const line = await this.#lines.next();
      if (line.done === true) throw new Error('QEMU closed its QMP socket');
      const reply = JSON.parse(line.value) as QmpReply;
      if (reply.error !== undefined) throw new Error(reply.error.desc);
      if ('return' in reply) return reply.return;
      if (reply.event !== undefined) this.events.push(reply.event);
    }
  }

  close(): void {
    this.#interface.close();
    this.#socket.destroy();
  }
}
