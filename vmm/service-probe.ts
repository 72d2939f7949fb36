/**
 * What a client sees of a guest, measured from this machine: a few connections that stay open, each asking and waiting
 * for its answer, over and over. Guarantees: a request counts as lost only when its connection broke before the answer
 * came; the gap is the longest that any request waited.
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { GaiaError } from './core/errors.ts';

/** Between an answer and the next request: often enough to see a gap, seldom enough to be no load. */
const pauseMs = 10;
const connectTimeoutMs = 5000;

/** One question in the protocol of the service, and how its answer begins. */
interface ProbeRequest {
  readonly text: string;
  readonly answerBegins: string;
}

/** Questions for the services of the images here; any other service is asked by new connections. */
const knownServices: Readonly<Record<string, ProbeRequest>> = {
  memcached: { text: 'version\r\n', answerBegins: 'VERSION ' },
  redis: { text: 'PING\r\n', answerBegins: '+PONG' },
  nginx: { text: 'HEAD / HTTP/1.1\r\nHost: probe\r\n\r\n', answerBegins: 'HTTP/1.1 ' },
  'node-sqlite': { text: 'HEAD / HTTP/1.1\r\nHost: probe\r\n\r\n', answerBegins: 'HTTP/1.1 ' },
};

export interface ProbeReport {
  readonly connections: number;
  /** Ended by the other side, or reset. */
  readonly brokenConnections: number;
  readonly requests: number;
  readonly lostRequests: number;
  /** Answers that were not what the service says. */
  readonly wrongAnswers: number;
  /** Longest time from a request to its answer, ms. */
  readonly gapMs: number;
  readonly medianMs: number;
}

export class ServiceProbe {
  readonly #clients: readonly ProbeClient[];
  readonly #runs: Promise<void>;

  private constructor(clients: readonly ProbeClient[]) {
    this.#clients = clients;
    this.#runs = Promise.all(clients.map((client) => client.run())).then(() => undefined);
  }

  /** Resolves once every connection is open. Throws when the service cannot be reached. */
  static async open(image: string, host: string, port: number, connections: number): Promise<ServiceProbe> {
    const request = knownServices[image];
    const opening = Array.from({ length: connections }, () => ProbeClient.open(host, port, request));
    try {
      return new ServiceProbe(await Promise.all(opening));
    } catch (error) {
      for (const settled of await Promise.allSettled(opening))
        if (settled.status === 'fulfilled') settled.value.stop();
      throw error;
    }
  }

  /** Ends after the requests under way, or after `patienceMs` without an answer. */
  async stop(patienceMs: number): Promise<ProbeReport> {
    for (const client of this.#clients) client.stop();
    const impatient = new AbortController();
    await Promise.race([
      this.#runs,
      delay(patienceMs, undefined, { signal: impatient.signal }).catch(() => undefined),
    ]);
    impatient.abort();
    const waits = this.#clients.flatMap((client) => client.waits(performance.now())).sort((a, b) => a - b);
    const sum = (value: (client: ProbeClient) => number) =>
      this.#clients.reduce((total, client) => total + value(client), 0);
    const report: ProbeReport = {
      connections: this.#clients.length,
      brokenConnections: sum((client) => client.broken),
      requests: sum((client) => client.requests),
      lostRequests: sum((client) => client.lost),
      wrongAnswers: sum((client) => client.wrong),
      gapMs: waits.at(-1) ?? 0,
      medianMs: waits[waits.length >> 1] ?? 0,
    };
    for (const client of this.#clients) client.close();
    return report;
  }
}

class ProbeClient {
  broken = 0;
  requests = 0;
  lost = 0;
  wrong = 0;
  readonly #host: string;
  readonly #port: number;
  readonly #request: ProbeRequest | undefined;
  readonly #waits: number[] = [];
  #socket: Socket;
  #received = '';
  #ended = false;
  #stopping = false;
  #askedMs: number | undefined;
  #wake: () => void = () => undefined;

  private constructor(host: string, port: number, request: ProbeRequest | undefined, socket: Socket) {
    this.#host = host;
    this.#port = port;
    this.#request = request;
    this.#socket = socket;
    this.#listen(socket);
  }

  static async open(host: string, port: number, request: ProbeRequest | undefined): Promise<ProbeClient> {
    return new ProbeClient(host, port, request, await open(host, port));
  }

  async run(): Promise<void> {
    while (!this.#stopping && !this.#ended) {
      this.requests++;
      this.#askedMs = performance.now();
      await (this.#request === undefined ? this.#reconnect() : this.#ask(this.#request));
      this.#waits.push(performance.now() - this.#askedMs);
      this.#askedMs = undefined;
      await delay(pauseMs);
    }
  }

  /** How long requests waited, the one under way included. */
  waits(nowMs: number): number[] {
    return this.#askedMs === undefined ? this.#waits : [...this.#waits, nowMs - this.#askedMs];
  }

  stop(): void {
    this.#stopping = true;
  }

  close(): void {
    this.#stopping = true;
    this.#ended = true;
    this.#socket.destroy();
    this.#wake();
  }

  #listen(socket: Socket): void {
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#received += text;
      this.#wake();
    });
    socket.on('error', () => undefined); // What follows is "close".
    socket.on('close', () => {
      if (!this.#ended && !this.#stopping) this.broken++;
      this.#ended = true;
      this.#wake();
    });
  }

  async #ask({ text, answerBegins }: ProbeRequest): Promise<void> {
    this.#received = '';
    this.#socket.write(text);
    while (!this.#received.includes('\n')) {
      if (this.#ended) {
        this.lost++;
        return;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (!this.#received.startsWith(answerBegins)) this.wrong++;
  }

  /** The service's protocol is not known here: the guest's own kernel answers a new connection. */
  async #reconnect(): Promise<void> {
    try {
      const socket = await open(this.#host, this.#port);
      socket.destroy();
    } catch {
      this.lost++;
    }
  }
}

function open(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true, timeout: connectTimeoutMs });
    const fail = (cause?: Error): void => {
      socket.destroy();
      reject(
        new GaiaError('GAIA_PROBE', `${host}:${port} takes no connection: is the service up in the guest?`, {
          ...(cause === undefined ? {} : { cause }),
        }),
      );
    };
    socket.once('error', fail);
    socket.once('timeout', () => fail());
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      socket.removeAllListeners('timeout');
      socket.setTimeout(0);
      resolve(socket);
    });
  });
}
