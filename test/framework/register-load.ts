/**
 * Clients that share registers in redis, for a check of linearizability:
 *
 *   node dist/test/framework/register-load.js HOST PORT CONNECTIONS
 *
 * Each reads or writes one of a few keys, every value written once only, and remembers when it asked and when the
 * reply came, all on this process's clock. A register is used for a while only, so that its history stays short.
 */
import { connect, type Socket } from 'node:net';
import type { RegisterOperation } from './linearizability.ts';

/** What the clients saw. */
export interface RegisterReport {
  readonly errors: readonly string[];
  /** By register. An operation without a reply has null instead of a time: JSON knows no Infinity. */
  readonly histories: Readonly<Record<string, readonly RecordedOperation[]>>;
}

export interface RecordedOperation extends Omit<RegisterOperation, 'repliedAt'> {
  readonly repliedAt: number | null;
}

const registersAtATime = 2;
const registerLifeMs = 1000;

type Recorder = (register: string, operation: RecordedOperation) => void;

class RegisterClient {
  readonly errors: string[] = [];
  operations = 0;
  readonly #socket: Socket;
  readonly #name: string;
  readonly #record: Recorder;
  #received = '';
  #wake: () => void = () => undefined;
  #stopping = false;
  #broken = false;

  constructor(host: string, port: number, name: string, record: Recorder) {
    this.#name = name;
    this.#record = record;
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (text: string) => {
      this.#received += text;
      this.#wake();
    });
    const fail = (what: string) => {
      if (!this.#stopping) this.errors.push(`${name} ${what} after ${this.operations} operations`);
      this.#broken = true;
      this.#wake();
    };
    this.#socket.on('error', (error) => fail(error.message));
    this.#socket.on('close', () => fail('was closed by the server'));
  }

  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<void> {
    for (let turn = 0; !this.#stopping && !this.#broken; turn++) {
      const era = Math.floor(performance.now() / registerLifeMs);
      const register = `r${era}-${turn % registersAtATime}`;
      if (Math.random() < 0.5) await this.#write(register, `${this.#name}.${turn}`);
      else await this.#read(register);
    }
    this.#stopping = true;
    this.#socket.destroy();
  }

  async #write(register: string, value: string): Promise<void> {
    const invokedAt = performance.now();
    const reply = await this.#ask(`SET ${register} ${value}\r\n`, /^\+OK\r\n$/);
    this.#record(register, { kind: 'write', value, invokedAt, repliedAt: repliedAt(reply) });
  }

  async #read(register: string): Promise<void> {
    const invokedAt = performance.now();
    const reply = await this.#ask(`GET ${register}\r\n`, /^(\$-1|\$\d+\r\n[^\r]+)\r\n$/);
    const value = reply?.startsWith('$-1') === false ? (reply.split('\r\n')[1] ?? null) : null;
    this.#record(register, { kind: 'read', value, invokedAt, repliedAt: repliedAt(reply) });
  }

  /** The reply, or undefined when the connection broke before it was whole. */
  async #ask(request: string, whole: RegExp): Promise<string | undefined> {
    this.#socket.write(request);
    while (!whole.test(this.#received)) {
      if (this.#broken) return undefined;
      if (this.#received.startsWith('-')) {
        this.errors.push(`${this.#name}: ${request.trim()} was answered ${this.#received.trim()}`);
        this.#broken = true;
        return undefined;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const reply = this.#received;
    this.#received = '';
    this.operations++;
    return reply;
  }
}

function repliedAt(reply: string | undefined): number | null {
  return reply === undefined ? null : performance.now();
}

const [host = '', port = '', connections = ''] = process.argv.slice(2);
const histories: Record<string, RecordedOperation[]> = {};
const clients = Array.from({ length: Number(connections) }, (_, number) => {
  return new RegisterClient(host, Number(port), `c${number}`, (register, operation) => {
    (histories[register] ??= []).push(operation);
  });
});
const runs = Promise.all(clients.map((client) => client.run()));
const announce = setInterval(() => {
  if (!clients.every((client) => client.operations > 0)) return;
  clearInterval(announce);
  process.stdout.write('serving\n');
}, 10);
process.stdin.on('end', () => clients.forEach((client) => client.stop()));
process.stdin.resume();
await runs;
clearInterval(announce);
const report: RegisterReport = { errors: clients.flatMap((client) => client.errors), histories };
process.stdout.write(`${JSON.stringify(report)}\n`);
