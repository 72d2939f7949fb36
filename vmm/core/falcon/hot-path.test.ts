/** Two replicas wired back to back: what one record costs from proposal to commit, and what it leaves behind. */
import type { HeapProfiler } from 'node:inspector';
import { Session } from 'node:inspector/promises';
import { describe, expect, it } from 'vitest';
import { NO_REPLICA, type LogIndex, type ReplicaId, type Term } from '../ids.ts';
import { crc32cByTables } from './crc32c.ts';
import { recordMemory } from './record.ts';
import { FalconReplica } from './replica.ts';
import { DEFAULT_TIMES } from './settings.ts';
import { ACK_BYTES, HEARTBEAT_BYTES } from './signal.ts';

const VOTERS = [0, 1] as ReplicaId[];
const LEADER = 0 as ReplicaId;
const BACKUP = 1 as ReplicaId;

function replicaOf(self: ReplicaId): FalconReplica {
  return new FalconReplica({
    self,
    voters: VOTERS,
    processNumber: 1,
    hardState: { clusterId: 1n, term: 0 as Term, votedFor: NO_REPLICA },
    base: {
      index: 0 as LogIndex,
      term: 0 as Term,
      checksum: 0,
      executing: [{ replica: LEADER, incarnation: 1 }],
    },
    durability: 'memory',
    times: DEFAULT_TIMES,
    logLimits: { storageBytes: 1 << 20, recordsMax: 4096, recordBytesMax: 4096 },
    crc32c: crc32cByTables,
    copyBytes: (target, targetAt, source, sourceAt, length) => {
      for (let at = 0; at < length; at++) target[targetAt + at] = source[sourceAt + at] ?? 0;
    },
    random: () => 0.5,
  });
}

class Pair {
  readonly leader = replicaOf(LEADER);
  readonly backup = replicaOf(BACKUP);
  readonly #wire = new Uint8Array(8192);
  readonly #block = recordMemory(new Uint8Array(ACK_BYTES));
  #applied = 0;

  constructor() {
    this.leader.setExecutor(1, true);
    this.leader.start(900_000);
    this.backup.start(900_000);
    // Only watched silence counts: a replica that does not look hears none.
    for (let nowUs = 900_000; nowUs <= 1_000_000; nowUs += 1_000) {
      this.backup.tick(nowUs);
      this.leader.tick(nowUs);
    }
    for (let round = 0; round < 20 && !this.leader.mayServe; round++) this.#exchange();
  }

  #exchange(): void {
    for (const [one, other] of [
      [this.leader, this.backup],
      [this.backup, this.leader],
    ] as const) {
      one.tick(1_000_000 + 1);
      if (one.hardStateDirty) one.hardStatePersisted();
      const request = one.takeRegionRequest();
      if (request !== undefined) one.regionOpened(request.writer, request.term, Uint8Array.of(1));
      for (let message = one.takeMessage(); message !== undefined; message = one.takeMessage()) {
        other.receive(one.state.self, message.bytes);
      }
    }
    this.replicate();
  }

  /** Everything a shell does for a record, without the memory between two processes. */
  replicate(): void {
    const { leader, backup } = this;
    for (let index = leader.nextToShip(BACKUP); index > 0; index = leader.nextToShip(BACKUP)) {
      const at = leader.offsetToShip(index);
      const length = leader.log.bytesAt(index);
      for (let byte = 0; byte < length; byte++) this.#wire[byte] = leader.log.memory.bytes[at + byte] ?? 0;
      leader.shipped(BACKUP, index);
      backup.receiveRecord(this.#wire, 0, length);
    }
    if (backup.ackDue) {
      backup.writeAck(this.#block, 0);
      leader.readAck(BACKUP, this.#block.bytes, 0);
    }
    if (leader.heartbeatDue) {
      leader.writeHeartbeat(this.#block, 0);
      backup.readHeartbeat(LEADER, this.#block.bytes.subarray(0, HEARTBEAT_BYTES), 0);
      leader.heartbeatWritten();
    }
    while (this.#applied < backup.commitIndex) this.#applied++;
    backup.applied(this.#applied as LogIndex);
    leader.applied(leader.commitIndex);
  }

  record(payloadBytes: number): void {
    const at = this.leader.reserve(payloadBytes);
    this.leader.log.memory.bytes[at] = 1;
    this.leader.commitReserved(16, 1, payloadBytes);
    this.replicate();
  }
}

describe('the path of a record', () => {
  it('commits each record in one exchange, in order', () => {
    const pair = new Pair();
    expect(pair.leader.mayServe).toBe(true);
    const before = pair.leader.commitIndex;
    for (let count = 1; count <= 1000; count++) {
      pair.record(64);
      expect(pair.leader.commitIndex).toBe(before + count);
    }
    expect(pair.backup.commitIndex).toBe(pair.leader.commitIndex);
  });

  it.each([
    [64, 100_000],
    [1500, 20_000],
  ])('leaves nothing for the garbage collector, with %i bytes', async (bytes, records) => {
    const pair = new Pair();
    for (let count = 0; count < records; count++) pair.record(bytes);
    const session = new Session();
    session.connect();
    await session.post('HeapProfiler.startSampling', {
      samplingInterval: 1024,
      includeObjectsCollectedByMajorGC: true,
      includeObjectsCollectedByMinorGC: true,
    });
    for (let count = 0; count < records; count++) pair.record(bytes);
    const { profile } = await session.post('HeapProfiler.stopSampling');
    session.disconnect();
    const core = allocatedIn('/vmm/core/', profile.head);
    // A single number boxed for each record would be 16 bytes.
    expect(core / records).toBeLessThan(2);
  });
});

function allocatedIn(folder: string, node: HeapProfiler.SamplingHeapProfileNode): number {
  const own =
    node.callFrame.url.includes(folder) && !node.callFrame.url.endsWith('.test.ts') ? node.selfSize : 0;
  return node.children.reduce((sum, child) => sum + allocatedIn(folder, child), own);
}
