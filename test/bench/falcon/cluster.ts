/**
 * A Falcon cluster of threads in this process. `two threads`: the leader on one core, all backups stepped in turn on
 * the other, so that the cost of the protocol can be read without the scheduler's noise. `thread each`: as many
 * threads as replicas, which two cores must share.
 */
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import type { PeerCard } from '../../../vmm/io/transport/transport.ts';
import type { NodeSettings } from './replica-node.ts';
import type { ThreadCommand, ThreadReport, ThreadStart } from './replica-thread.ts';

export interface ClusterSettings {
  readonly replicas: number;
  readonly transport: NodeSettings['transport'];
  readonly durability: NodeSettings['durability'];
  readonly threads: 'two threads' | 'thread each';
  readonly waiting: ThreadStart['waiting'];
  readonly folder: string;
}

export class Cluster {
  readonly #workers: readonly Worker[];

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers;
  }

  /** Resolves once replica 1 leads and its term has begun. */
  static async start(settings: ClusterSettings): Promise<Cluster> {
    const nodes = Array.from({ length: settings.replicas }, (_, at): NodeSettings => {
      const { replicas: voters, transport, durability, folder } = settings;
      return { self: at + 1, voters, transport, durability, folder };
    });
    const shares =
      settings.threads === 'two threads' ? [nodes.slice(0, 1), nodes.slice(1)] : nodes.map((node) => [node]);
    const cluster = new Cluster(
      shares.map((share) => {
        const start: ThreadStart = { nodes: share, waiting: settings.waiting };
        // The transports open descriptors natively and close them themselves.
        return new Worker(new URL('./replica-thread.js', import.meta.url), {
          workerData: start,
          trackUnmanagedFds: false,
        });
      }),
    );
    try {
      await cluster.#connect();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  async #connect(): Promise<void> {
    const reports = await Promise.all(this.#workers.map((worker) => nextReport(worker)));
    const cards: Record<number, Readonly<Record<number, PeerCard>>> = {};
    for (const report of reports) if ('cards' in report) Object.assign(cards, report.cards);
    const leads = nextReport(this.#leader);
    this.#tell({ do: 'connect', cards });
    await leads;
  }

  /** From propose to commit, one record at a time, µs. */
  async latenciesUs(payloadBytes: number, samplesMax: number, seconds: number): Promise<Float64Array> {
    const answer = nextReport(this.#leader);
    this.#tell({ do: 'latency', payloadBytes, samplesMax, seconds });
    const report = await answer;
    if (!('latenciesUs' in report)) throw new Error('The leader did not measure');
    return report.latenciesUs;
  }

  /** Committed records a second with `window` of them on their way. */
  async recordsPerSecond(payloadBytes: number, seconds: number, window: number): Promise<number> {
    const answer = nextReport(this.#leader);
    this.#tell({ do: 'throughput', payloadBytes, seconds, window });
    const report = await answer;
    if (!('recordsPerSecond' in report)) throw new Error('The leader did not measure');
    return report.recordsPerSecond;
  }

  async stop(): Promise<void> {
    this.#tell({ do: 'stop' });
    await Promise.all(this.#workers.map((worker) => ended(worker)));
  }

  get #leader(): Worker {
    const [leader] = this.#workers;
    if (leader === undefined) throw new Error('A cluster has a leader');
    return leader;
  }

  #tell(command: ThreadCommand): void {
    for (const worker of this.#workers) worker.postMessage(command);
  }
}

async function nextReport(worker: Worker): Promise<ThreadReport> {
  const [report] = (await once(worker, 'message')) as [ThreadReport];
  return report;
}

async function ended(worker: Worker): Promise<void> {
  if (worker.threadId === -1) return;
  await once(worker, 'exit');
}
