import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest';
import { toReplicaId } from './core/ids.ts';
import { FabricMeeting } from './fabric-meeting.ts';
import { freePorts } from './io/free-ports.ts';
import { PeerStates } from './peer-states.ts';
import type { ReplicaPlan, VmPlan } from './vm-plan.ts';

let folder: string;
let replicas: ReplicaPlan[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-meeting-'));
  const ports = await freePorts('127.0.0.1', 3);
  replicas = ['alpha', 'beta', 'gamma'].map((name, index) => ({
    ...{ id: toReplicaId(index), name, executes: index < 2, tap: `tap${index}` },
    peerAddress: { host: '127.0.0.1', port: ports[index] ?? 0 },
  }));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** What the meeting of one host tells, as long as the test lasts. */
class Host {
  readonly states: PeerStates;
  readonly #told: string[] = [];
  readonly #meeting: FabricMeeting;
  #wake: () => void = () => undefined;

  constructor(name: string, shared: Readonly<Record<string, string>>, states = name) {
    const self = replicas.find((replica) => replica.name === name);
    if (self === undefined) throw new Error(`There is no replica ${name}`);
    const plan = { name: 'web1', clusterId: '7', replicas, hosts: { local: name, shared } };
    this.states = new PeerStates(join(folder, `${states}.json`));
    const tell = (what: string) => {
      this.#told.push(what);
      this.#wake();
    };
    this.#meeting = new FabricMeeting(plan as unknown as VmPlan, self, this.states, {
      invite: () => Promise.resolve({ from: self.id }),
      connect: (peer) => {
        tell(`connect ${peer.name}`);
        return Promise.resolve(true);
      },
      lost: (peer) => tell(`lost ${peer.name}`),
      refused: ({ code, message }) => tell(`${code} ${message}`),
      answer: () => Promise.resolve({}),
    });
    onTestFinished(() => this.end());
  }

  open(): Promise<void> {
    return this.#meeting.open();
  }

  end(): void {
    this.#meeting.end();
  }

  async until(what: string): Promise<void> {
    while (!this.#told.some((told) => told.includes(what)))
      await new Promise<void>((resolve) => (this.#wake = resolve));
  }
}

const facts = { memory: '256M', qemu: '0123456789abcdef' };

it('brings hosts together that have all alike, and notes that each has begun once it has met both others', async () => {
  const [alpha, beta, gamma] = [new Host('alpha', facts), new Host('beta', facts), new Host('gamma', facts)];
  await alpha.open();
  await beta.open();
  await Promise.all([alpha.until('connect beta'), beta.until('connect alpha')]);
  expect(alpha.states.begun).toBe(false);
  await gamma.open();
  await Promise.all([alpha.until('connect gamma'), beta.until('connect gamma'), gamma.until('connect beta')]);
  expect([alpha.states.begun, beta.states.begun]).toEqual([true, true]);
});

it('refuses a QEMU of another build by name, on both hosts', async () => {
  const [alpha, beta] = [new Host('alpha', facts), new Host('beta', { ...facts, qemu: 'fedcba9876543210' })];
  await Promise.all([alpha.open(), beta.open()]);
  const said =
    'GAIA_PEER_QEMU Replica beta runs QEMU build fedcba9876543210, replica alpha build 0123456789abcdef';
  await Promise.all([alpha.until(said), beta.until(said)]);
});

it('refuses a replica that comes back without its state, on both hosts', async () => {
  const [alpha, beta, gamma] = [new Host('alpha', facts), new Host('beta', facts), new Host('gamma', facts)];
  await Promise.all([alpha.open(), beta.open(), gamma.open()]);
  await alpha.until('connect beta');
  await alpha.until('connect gamma');
  beta.end();
  await alpha.until('lost beta');
  const emptied = new Host('beta', facts, 'another');
  await emptied.open();
  const said = 'GAIA_PEER_STATE Replica beta has not the state that replica alpha knows it by';
  await Promise.all([alpha.until(said), emptied.until(said)]);
});
