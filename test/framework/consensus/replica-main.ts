/**
 * One replica of a Falcon log without a guest: the consensus shell over a real transport, in a process of its own.
 * Its only argument is `ReplicaStart` as JSON. It reads a command per line, and prints an event per line, as JSON.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { ConsensusShell } from '../../../vmm/consensus-shell.ts';
import { RECORD_HEADER_BYTES, recordPayloadBytes, recordType } from '../../../vmm/core/falcon/record.ts';
import { RecordType } from '../../../vmm/core/falcon/record-type.ts';
import { toReplicaId, type LogIndex, type ReplicaId } from '../../../vmm/core/ids.ts';
import { MailKind } from '../../../vmm/io/mail.ts';
import { PeerMeeting, type PeerAddress } from '../../../vmm/io/transport/meeting.ts';
import { openTransport, type TransportSettings } from '../../../vmm/io/transport/open.ts';

export interface ReplicaStart {
  readonly self: number;
  readonly clusterId: string;
  /** Of the replica's own. */
  readonly folder: string;
  readonly transport: TransportSettings;
  readonly addresses: readonly (readonly [number, PeerAddress])[];
}

export type ReplicaCommand =
  { readonly do: 'propose'; readonly text: string } | { readonly do: 'executing'; readonly set: number[] };

export type ReplicaEvent =
  | { readonly event: 'role'; readonly role: string; readonly term: number; readonly serves: boolean }
  | { readonly event: 'committed'; readonly index: number; readonly text: string }
  | { readonly event: 'proposed'; readonly text: string; readonly result: number | string }
  | { readonly event: 'executing'; readonly result: number | string }
  | { readonly event: 'gone'; readonly peer: number; readonly why: string }
  | { readonly event: 'refused'; readonly code: string; readonly text: string };

const textType = RecordType.firstOfApplication;
const start = JSON.parse(process.argv[2] ?? '') as ReplicaStart;

function say(event: ReplicaEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function nowUs(): number {
  return performance.now() * 1000;
}

class Replica {
  readonly #transport = openTransport(toReplicaId(start.self), start.transport);
  readonly #shell: ConsensusShell;
  readonly #meeting: PeerMeeting;
  #printed = 0;
  #role = '';

  constructor() {
    const voters = start.addresses.map(([id]) => toReplicaId(id));
    const self = toReplicaId(start.self);
    mkdirSync(start.folder, { recursive: true });
    this.#shell = new ConsensusShell(
      {
        ...{ self, voters, firstExecutor: voters[0] ?? self, durability: 'memory' },
        clusterId: BigInt(start.clusterId),
        folder: start.folder,
        hardStateFile: join(start.folder, 'hard-state.json'),
      },
      this.#transport,
    );
    this.#shell.falcon.setExecutor(1, true);
    const addresses = new Map(start.addresses.map(([id, address]) => [toReplicaId(id), address]));
    this.#meeting = new PeerMeeting(
      { clusterId: start.clusterId, self: toReplicaId(start.self), addresses },
      {
        invite: (peer) => Promise.resolve(this.#transport.invite(peer)),
        connect: (peer, card) => {
          this.#transport.connect(peer, card);
        },
        lost: (peer) => {
          this.#gone(peer, 'its control connection has ended');
        },
        refused: ({ code, message }) => {
          say({ event: 'refused', code, text: message });
        },
      },
    );
  }

  async run(): Promise<void> {
    await this.#meeting.open();
    const { falcon } = this.#shell;
    falcon.start(nowUs());
    for (let idle = 0; ;) {
      idle = this.#pass(nowUs()) ? 0 : idle + 1;
      // Commands and control connections live in the event loop.
      await (idle > 50 ? setTimeout(1) : new Promise((resolve) => setImmediate(resolve)));
    }
  }

  command(command: ReplicaCommand): void {
    const { falcon } = this.#shell;
    if (command.do === 'propose') {
      const result = falcon.propose(textType, 1, Buffer.from(command.text));
      say({ event: 'proposed', text: command.text, result });
      return;
    }
    const set = command.set.map((id) => ({ replica: toReplicaId(id), incarnation: 1 }));
    say({ event: 'executing', result: falcon.proposeExecutingSet(set) });
  }

  #gone(peer: ReplicaId, why: string): void {
    say({ event: 'gone', peer, why });
    this.#shell.falcon.peerGone(peer);
  }

  #pass(now: number): boolean {
    const { falcon } = this.#shell;
    const transport = this.#transport;
    transport.progress(now);
    for (let gone = transport.takeGone(); gone !== undefined; gone = transport.takeGone()) {
      this.#gone(gone, transport.failureOf(gone) ?? '');
      this.#meeting.drop(gone);
    }
    falcon.tick(now);
    let worked = this.#takeMail();
    worked = this.#shell.takeInputs() || worked;
    falcon.leaderProgress();
    worked = this.#shell.carryOut() || worked;
    this.#print();
    return worked;
  }

  #takeMail(): boolean {
    let worked = false;
    for (const peer of this.#transport.peers()) {
      while (peer.messages.next()) {
        if (peer.messages.kind === MailKind.falcon) this.#shell.falcon.receive(peer.id, peer.messages.copy());
        peer.messages.consume();
        worked = true;
      }
    }
    return worked;
  }

  #print(): void {
    const { falcon } = this.#shell;
    falcon.takeRebased();
    for (; this.#printed < falcon.commitIndex; this.#printed++) {
      const index = (this.#printed + 1) as LogIndex;
      const { log } = falcon;
      if (index < log.firstIndex) continue;
      const at = log.offsetAt(index);
      if (recordType(log.memory, at) !== textType) continue;
      const from = at + RECORD_HEADER_BYTES;
      const payload = log.memory.bytes.subarray(from, from + recordPayloadBytes(log.memory, at));
      say({ event: 'committed', index, text: Buffer.from(payload).toString() });
    }
    falcon.applied(falcon.commitIndex);
    const role = `${falcon.role} ${falcon.term} ${falcon.mayServe}`;
    if (role === this.#role) return;
    this.#role = role;
    say({ event: 'role', role: falcon.role, term: falcon.term, serves: falcon.mayServe });
  }
}

const replica = new Replica();
createInterface({ input: process.stdin })
  .on('line', (line) => {
    replica.command(JSON.parse(line) as ReplicaCommand);
  })
  .on('close', () => process.exit(0));
await replica.run();
