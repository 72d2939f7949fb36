/** Falcon over a fabric, between hosts that share nothing but a network: namespaces joined by a switch. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fabric } from '../../native/fabric.ts';
import { ReplicaProcess } from '../framework/consensus/replica-process.ts';
import { SeparateHosts } from '../framework/consensus/separate-hosts.ts';
import { NetworkNamespace } from '../framework/network-namespace.ts';

const peerPort = 7700;
const whyImpossible =
  NetworkNamespace.whyImpossible() ?? (fabric() === undefined ? 'libfabric-dev is not installed' : undefined);

describe.skipIf(whyImpossible !== undefined)(`three hosts (${whyImpossible ?? 'namespaces'})`, () => {
  let hosts: SeparateHosts;
  let folder: string;
  let replicas: ReplicaProcess[];

  const start = (host: number, clusterId = '4711'): ReplicaProcess => {
    const ids = [0, 1, 2];
    const replica = new ReplicaProcess(
      {
        self: host + 1,
        clusterId,
        folder: join(folder, `replica-${host}`),
        transport: { kind: 'fabric', provider: 'tcp;ofi_rxm', address: hosts.address(host) },
        addresses: ids.map((id) => [id + 1, { host: hosts.address(id), port: peerPort }] as const),
      },
      hosts.host(host),
    );
    replicas.push(replica);
    return replica;
  };

  beforeEach(async () => {
    hosts = await SeparateHosts.create(3);
    folder = mkdtempSync(join(tmpdir(), 'gaia-consensus-'));
    replicas = [];
  });

  afterEach(async () => {
    await Promise.all(replicas.map((replica) => replica.kill()));
    await hosts.remove();
    rmSync(folder, { recursive: true });
  });

  /** Proposes texts at `leader`, and waits until all of `everywhere` have committed the last. */
  const commit = async (leader: ReplicaProcess, texts: readonly string[], everywhere: ReplicaProcess[]) => {
    for (const text of texts) leader.command({ do: 'propose', text });
    const last = texts.at(-1) ?? '';
    for (const replica of everywhere)
      await replica.until(`"${last}" committed`, () => replica.committed.includes(last));
  };

  /** All three up, the first one serving, the first two allowed to. */
  const protectedPair = async (): Promise<readonly [ReplicaProcess, ReplicaProcess, ReplicaProcess]> => {
    const [one, two, three] = [start(0), start(1), start(2)] as const;
    await one.until('serving', () => one.serves);
    one.command({ do: 'executing', set: [1, 2] });
    await one.until('the executing set', () => one.events.some(({ event }) => event === 'executing'));
    await commit(one, ['first'], [one, two, three]);
    return [one, two, three];
  };

  const texts = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => `record ${from + i}`);

  it('commit records in one order, and outlive the death of the leader’s host', async () => {
    const [one, two, three] = await protectedPair();
    await commit(one, texts(0, 200), [one, two, three]);
    await one.kill();
    await two.until('serving', () => two.serves);
    await commit(two, texts(200, 100), [two, three]);
    expect(two.committed).toEqual(['first', ...texts(0, 300)]);
    expect(three.committed).toEqual(two.committed);
  });

  it('go on without a leader that is cut off, and take it back with nothing of its own kept', async () => {
    const [one, two, three] = await protectedPair();
    await commit(one, texts(0, 50), [one, two, three]);
    // One-way: the leader hears everybody, nobody hears it.
    await hosts.cut(0, 1);
    await hosts.cut(0, 2);
    for (const text of ['lost 1', 'lost 2']) one.command({ do: 'propose', text });
    await two.until('serving', () => two.serves);
    await one.until('its stepping down', () => !one.serves);
    await commit(two, texts(50, 50), [two, three]);
    await hosts.mend(0, 1);
    await hosts.mend(0, 2);
    await one.until('the records it missed', () => one.committed.includes('record 99'), 40_000);
    await commit(two, texts(100, 20), [one, two, three]);
    expect(two.committed).toEqual(['first', ...texts(0, 120)]);
    expect(three.committed).toEqual(two.committed);
    expect(one.committed).toEqual(two.committed);
  });

  it('refuse a replica of another cluster, and say so on both sides', async () => {
    const one = start(0);
    const stranger = start(1, '4712');
    const refused = (replica: ReplicaProcess) => () =>
      replica.events.some(({ event }) => event === 'refused');
    await Promise.all([
      one.until('the refusal', refused(one)),
      stranger.until('the refusal', refused(stranger)),
    ]);
    expect(stranger.events).toContainEqual(
      expect.objectContaining({ event: 'refused', code: 'GAIA_PEER_CLUSTER' }),
    );
  });
});
