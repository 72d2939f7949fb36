/**
 * Three replicas of the log without guests, in one thread: the core, the shell, the transport over shared memory and the
 * storage of an agent, turned by the test in real time. A replica that is not turned stands still, like a frozen one.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ConsensusShell } from '../../vmm/consensus-shell.ts';
import { RecordType } from '../../vmm/core/falcon/record-type.ts';
import { toReplicaId, type ReplicaId } from '../../vmm/core/ids.ts';
import { MailKind } from '../../vmm/io/mail.ts';
import { ShmTransport } from '../../vmm/io/transport/shm.ts';
import type { Transport } from '../../vmm/io/transport/transport.ts';

const limitMs = 60_000;

function nowUs(): number {
  return performance.now() * 1000;
}

export class ShellReplica {
  readonly id: ReplicaId;
  readonly shell: ConsensusShell;
  readonly transport: Transport;
  turns = true;
  /** Where its log began anew while it ran. */
  rebasedIndex: number | undefined;

  constructor(id: ReplicaId, voters: readonly ReplicaId[], durability: 'disk' | 'memory', folder: string) {
    this.id = id;
    this.transport = new ShmTransport(id);
    const own = join(folder, String(id));
    mkdirSync(own, { recursive: true });
    this.shell = new ConsensusShell(
      {
        ...{ self: id, voters, durability, folder: own },
        firstExecutor: toReplicaId(0),
        clusterId: 9n,
        hardStateFile: join(own, 'hard-state.json'),
      },
      this.transport,
    );
    this.shell.falcon.setExecutor(1, id === 0);
  }

  get falcon() {
    return this.shell.falcon;
  }

  pass(): void {
    const { transport, shell, falcon } = this;
    transport.progress(nowUs());
    for (let gone = transport.takeGone(); gone !== undefined; gone = transport.takeGone())
      falcon.peerGone(gone);
    falcon.tick(nowUs());
    for (const peer of transport.peers()) {
      while (peer.messages.next()) {
        const { kind } = peer.messages;
        const bytes = peer.messages.copy();
        peer.messages.consume();
        if (kind === MailKind.falcon) falcon.receive(peer.id, bytes);
      }
    }
    shell.takeInputs();
    this.rebasedIndex = shell.storage.takeRebased() ?? this.rebasedIndex;
    falcon.applied(falcon.commitIndex);
    falcon.leaderProgress();
    shell.carryOut();
  }

  close(): void {
    this.transport.close();
    this.shell.storage.close();
  }
}

export class ShellCluster {
  readonly replicas: readonly ShellReplica[];

  /** Begins in `folder`, or goes on there. */
  constructor(durability: 'disk' | 'memory', folder: string) {
    const voters = [0, 1, 2].map(toReplicaId);
    this.replicas = voters.map((id) => new ShellReplica(id, voters, durability, folder));
    const cards = this.replicas.flatMap((from) =>
      this.replicas
        .filter((to) => to !== from)
        .map((to) => ({ from, to, card: from.transport.invite(to.id) })),
    );
    for (const { from, to, card } of cards) to.transport.connect(from.id, card);
    for (const { falcon } of this.replicas) falcon.start(nowUs());
  }

  replica(id: number): ShellReplica {
    const found = this.replicas[id];
    if (found === undefined) throw new Error(`There is no replica ${id}`);
    return found;
  }

  until(what: string, holds: () => boolean): void {
    const deadline = performance.now() + limitMs;
    while (!holds()) {
      if (performance.now() > deadline) throw new Error(`After ${limitMs / 1000} s not yet: ${what}`);
      for (const replica of this.replicas) if (replica.turns) replica.pass();
    }
  }

  /** Commits so many records at replica 0, which serves. */
  commit(count: number, payloadBytes: number): void {
    const { falcon } = this.replica(0);
    const payload = new Uint8Array(payloadBytes);
    for (let number = 0; number < count; number++) {
      payload.fill(number);
      this.until(
        'a record is taken',
        () => typeof falcon.propose(RecordType.firstOfApplication, 1, payload) === 'number',
      );
    }
    this.until('all is committed', () => falcon.commitIndex === falcon.log.lastIndex);
  }

  close(): void {
    for (const replica of this.replicas) replica.close();
  }
}
