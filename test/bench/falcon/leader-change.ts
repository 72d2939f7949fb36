/** From SIGKILL or SIGSTOP of a leader until another replica may serve: three processes on this machine. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { PeerCard } from '../../../vmm/io/transport/transport.ts';
import type { NodeSettings } from './replica-node.ts';
import type { ConnectMessage, ProcessReport } from './replica-process.ts';

const replicas = 3;

export interface LeaderEnd {
  readonly signal: 'SIGKILL' | 'SIGSTOP';
  readonly transport: NodeSettings['transport'];
}

export async function leaderChangeMs(folder: string, { signal, transport }: LeaderEnd): Promise<number> {
  const home = await mkdtemp(join(folder, 'change-'));
  const children: ChildProcess[] = [];
  try {
    for (let self = 1; self <= replicas; self++) {
      const settings: NodeSettings = {
        self,
        voters: replicas,
        transport,
        durability: 'memory',
        folder: home,
      };
      children.push(fork(new URL('./replica-process.js', import.meta.url), [JSON.stringify(settings)]));
    }
    const reports = await Promise.all(children.map((child) => nextReport(child)));
    const first = leads(children);
    for (const [at, child] of children.entries()) {
      const cards: Record<number, PeerCard> = {};
      for (const [from, report] of reports.entries()) {
        const card = 'cards' in report ? report.cards[at + 1] : undefined;
        if (card !== undefined) cards[from + 1] = card;
      }
      const message: ConnectMessage = { cards };
      child.send(message);
    }
    const { child: leader } = await first;
    const second = leads(children.filter((child) => child !== leader));
    const endedAtUs = Number(process.hrtime.bigint() / 1000n);
    leader.kill(signal);
    return ((await second).atUs - endedAtUs) / 1000;
  } finally {
    const running = children.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
    const ends = running.map((child) => once(child, 'exit'));
    for (const child of running) child.kill('SIGKILL');
    await Promise.all(ends);
    await rm(home, { recursive: true, force: true });
  }
}

async function nextReport(child: ChildProcess): Promise<ProcessReport> {
  const exited = once(child, 'exit').then(([code]) => {
    throw new Error(`A replica ended with ${String(code)}`);
  });
  const [report] = (await Promise.race([once(child, 'message'), exited])) as [ProcessReport];
  return report;
}

/** The first of them that tells that it leads. */
async function leads(children: readonly ChildProcess[]): Promise<{ child: ChildProcess; atUs: number }> {
  return Promise.race(
    children.map(async (child) => {
      const report = await nextReport(child);
      if (!('leadsAtUs' in report)) throw new Error('A replica said something else than that it leads');
      return { child, atUs: report.leadsAtUs };
    }),
  );
}
