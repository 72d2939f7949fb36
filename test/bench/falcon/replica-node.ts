/**
 * One Falcon replica as the agents run it, consensus only: the product's transport, core, shell and storage, stepped by
 * whoever owns it.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ConsensusShell } from '../../../vmm/consensus-shell.ts';
import type { ReplicaId } from '../../../vmm/core/ids.ts';
import { MailKind } from '../../../vmm/io/mail.ts';
import { FabricTransport } from '../../../vmm/io/transport/fabric.ts';
import { ShmTransport } from '../../../vmm/io/transport/shm.ts';
import type { PeerCard, Transport } from '../../../vmm/io/transport/transport.ts';

export interface NodeSettings {
  readonly self: number;
  readonly voters: number;
  readonly transport: 'shm' | 'fabric-tcp';
  readonly durability: 'disk' | 'memory';
  /** Its log and its vote go here. */
  readonly folder: string;
}

/** Any type of record that the core does not know. */
const recordType = 100;

export function nowUs(): number {
  return performance.now() * 1000;
}

export class ReplicaNode {
  readonly id: ReplicaId;
  readonly transport: Transport;
  readonly shell: ConsensusShell;

  constructor({ self, voters, transport, durability, folder }: NodeSettings) {
    this.id = self as ReplicaId;
    this.transport =
      transport === 'shm'
        ? new ShmTransport(this.id)
        : new FabricTransport(this.id, { provider: 'tcp;ofi_rxm', address: '127.0.0.1' });
    const home = join(folder, `replica${self}`);
    mkdirSync(home, { recursive: true, mode: 0o700 });
    this.shell = new ConsensusShell(
      {
        self: this.id,
        voters: Array.from({ length: voters }, (_, at) => (at + 1) as ReplicaId),
        firstExecutor: 1 as ReplicaId,
        durability,
        clusterId: 1n,
        folder: join(home, 'log'),
        hardStateFile: join(home, 'vote'),
      },
      this.transport,
    );
    // Every replica of the bench may lead; none has a guest.
    this.shell.falcon.setExecutor(1, true);
  }

  /** By peer, for its `connect`. */
  cards(voters: number): Record<number, PeerCard> {
    const cards: Record<number, PeerCard> = {};
    for (let peer = 1; peer <= voters; peer++)
      if (peer !== this.id) cards[peer] = this.transport.invite(peer as ReplicaId);
    return cards;
  }

  /** One pass of an agent's loop; `act` stands where an agent runs its guest. True when there was something to do. */
  pass(now: number, act?: () => void): boolean {
    const { falcon } = this.shell;
    this.transport.progress(now);
    for (let gone = this.transport.takeGone(); gone !== undefined; gone = this.transport.takeGone())
      falcon.peerGone(gone);
    falcon.tick(now);
    let worked = this.#takeMail();
    worked = this.shell.takeInputs() || worked;
    falcon.applied(falcon.commitIndex);
    act?.();
    falcon.leaderProgress();
    return this.shell.carryOut() || worked;
  }

  get leads(): boolean {
    return this.shell.falcon.mayServe;
  }

  /** The record's index, or 0: not now. */
  propose(payload: Uint8Array): number {
    const { falcon } = this.shell;
    const at = falcon.reserve(payload.length);
    if (at === -1) return 0;
    falcon.log.memory.bytes.set(payload, at);
    return falcon.commitReserved(recordType, 1, payload.length);
  }

  #takeMail(): boolean {
    let worked = false;
    for (const peer of this.transport.peers()) {
      while (peer.messages.next()) {
        if (peer.messages.kind === MailKind.falcon) this.shell.falcon.receive(peer.id, peer.messages.copy());
        peer.messages.consume();
        worked = true;
      }
    }
    return worked;
  }
}
