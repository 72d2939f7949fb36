import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { crc32cByTables } from './core/falcon/crc32c.ts';
import { recordMemory } from './core/falcon/record.ts';
import { RecordType } from './core/falcon/record-type.ts';
import { FalconReplica } from './core/falcon/replica.ts';
import { DEFAULT_LOG_LIMITS, DEFAULT_TIMES } from './core/falcon/settings.ts';
import { toLogIndex, toReplicaId, toTerm } from './core/ids.ts';
import { native } from '../native/binding.ts';
import { ReplicaStorage } from './replica-storage.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-storage-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const self = toReplicaId(0);
const clusterId = 5n;

/** The only voter of its cluster: it elects itself, and commits what its own disk holds. */
function open(
  durability: 'disk' | 'memory',
  storageBytes = 1 << 20,
  recordBytesMax = 1 << 16,
): ReplicaStorage {
  const members = { voters: [self], nonVoters: [] };
  const executing = [{ replica: self, incarnation: 1 }];
  const firstBase = { index: toLogIndex(0), term: toTerm(0), checksum: 0, executing, members };
  const hardStateFile = join(folder, 'hard-state.json');
  const storage = new ReplicaStorage(
    { durability, clusterId, self, folder, hardStateFile, crc32c: crc32cByTables, firstBase },
    ({ base, olderRecords, ...found }) =>
      new FalconReplica({
        ...{ self, ...found, base, durability, ...base.members },
        ...(olderRecords === undefined ? {} : { olderRecords }),
        times: DEFAULT_TIMES,
        logLimits: { ...DEFAULT_LOG_LIMITS, storageBytes, recordBytesMax },
        crc32c: crc32cByTables,
        random: () => 0.5,
      }),
  );
  storage.falcon.setExecutor(1, true);
  return storage;
}

/** Turns the storage's loop until `done`, or for as long as three seconds of virtual time. */
function turn(storage: ReplicaStorage, done: () => boolean): void {
  const { falcon } = storage;
  for (let nowUs = 0; !done(); nowUs += 1000) {
    if (nowUs > 3e6) throw new Error('It does not come about');
    falcon.tick(nowUs);
    storage.poll(nowUs);
    falcon.leaderProgress();
    storage.persistHardState();
    storage.persist();
    falcon.applied(falcon.commitIndex);
    if (storage.eventFd === -1) continue;
    native().waitReadable(Int32Array.of(storage.eventFd), new Uint8Array(1), 500);
    storage.drain();
  }
}

function lead(storage: ReplicaStorage): void {
  storage.falcon.start(0);
  turn(storage, () => storage.falcon.mayServe);
}

function propose(storage: ReplicaStorage, count: number, payloadBytes: number): void {
  const { falcon } = storage;
  for (let number = 0; number < count; number++) {
    let index: unknown;
    turn(storage, () => {
      index = falcon.propose(RecordType.firstOfApplication, 1, new Uint8Array(payloadBytes).fill(number));
      return typeof index === 'number';
    });
  }
  turn(storage, () => falcon.commitIndex === falcon.log.lastIndex);
}

it('commits nothing that is not on disk', () => {
  const storage = open('disk');
  storage.falcon.start(0);
  // Nobody asks the disk: the first record of the term cannot commit.
  for (let nowUs = 0; nowUs < 1e6; nowUs += 1000) {
    storage.falcon.tick(nowUs);
    storage.persistHardState();
  }
  expect(storage.falcon.role).toBe('leader');
  expect(storage.falcon.commitIndex).toBe(0);
  turn(storage, () => storage.falcon.commitIndex === 1);
  storage.close();
});

it('a replica comes back with its log, its term and its vote', () => {
  const first = open('disk');
  lead(first);
  propose(first, 50, 100);
  const { term, commitIndex, log } = first.falcon;
  const { lastIndex, lastChecksum } = log;
  first.close();

  const { falcon, processNumber, close } = bound(open('disk'));
  expect(processNumber).toBe(2);
  expect(falcon.state.logLost).toBe(false);
  expect(falcon.term).toBe(term);
  expect(falcon.state.votedFor).toBe(self);
  expect(falcon.log.lastIndex).toBe(lastIndex);
  expect(falcon.log.lastChecksum).toBe(lastChecksum);
  // Only what the records themselves say; the rest is committed again by the next leader.
  expect(falcon.commitIndex).toBeGreaterThanOrEqual(1);
  expect(falcon.commitIndex).toBeLessThanOrEqual(commitIndex);
  close();
});

function bound(storage: ReplicaStorage) {
  const { falcon, processNumber } = storage;
  return { falcon, processNumber, close: () => storage.close() };
}

it('with memory durability the log is lost with its process, term and vote are not', () => {
  const first = open('memory');
  lead(first);
  const { term } = first.falcon;
  first.close();
  const again = open('memory');
  expect(again.falcon.state.logLost).toBe(true);
  expect(again.falcon.term).toBe(term);
  expect(again.falcon.state.votedFor).toBe(self);
  expect(readdirSync(folder)).toEqual(['hard-state.json']);
  again.close();
});

it('a replica whose segments are gone knows that it lost them, also after it was started once more', () => {
  const first = open('disk');
  lead(first);
  propose(first, 3, 10);
  first.close();
  for (const name of readdirSync(folder)) if (name.startsWith('segment')) rmSync(join(folder, name));
  for (let start = 0; start < 2; start++) {
    const again = open('disk');
    expect(again.falcon.state.logLost).toBe(true);
    again.falcon.start(0);
    for (let nowUs = 0; nowUs < 1e6; nowUs += 1000) again.falcon.tick(nowUs);
    expect(again.falcon.role).toBe('follower');
    again.close();
  }
  // A leader has brought it level.
  const level = open('disk');
  level.falcon.state.logLost = false;
  level.poll(0);
  expect(existsSync(join(folder, 'log-lost'))).toBe(false);
  level.close();
  const sound = open('disk');
  expect(sound.falcon.state.logLost).toBe(false);
  sound.close();
});

it('a harmed log is refused, and once its segments are moved away as the refusal says, the replica has no vote', () => {
  const first = open('disk');
  lead(first);
  propose(first, 3, 10);
  first.close();
  const segment = join(folder, 'segment-0000000001.log');
  const bytes = readFileSync(segment);
  const at = bytes.indexOf('FREC') + 20;
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  writeFileSync(segment, bytes);
  const remedy = `move its segment-*.log files out of ${folder}, all of them: the replica comes back without a log`;
  expect(() => open('disk')).toThrow(remedy);
  const elsewhere = join(folder, 'harmed');
  mkdirSync(elsewhere);
  for (const name of readdirSync(folder).filter((file) => file.startsWith('segment-')))
    renameSync(join(folder, name), join(elsewhere, name));
  const again = open('disk');
  expect(again.falcon.state.logLost).toBe(true);
  again.close();
});

it('a log whose term and vote are gone is refused, and stays as it is', () => {
  const first = open('disk');
  lead(first);
  first.close();
  rmSync(join(folder, 'hard-state.json'));
  for (let start = 0; start < 2; start++)
    expect(() => open('disk')).toThrow(/hard-state.json is missing, though there is a log/);
});

it('a log that was begun and never used is taken up by a replica without a vote', () => {
  open('disk').close();
  rmSync(join(folder, 'hard-state.json'));
  const again = open('disk');
  expect(again.falcon.state.logLost).toBe(false);
  expect(again.processNumber).toBe(1);
  again.close();
});

it('reads back from disk what memory has dropped, as far as it is asked for', () => {
  const storage = open('disk', 64 * 1024, 4096);
  lead(storage);
  propose(storage, 200, 1500);
  const { falcon } = storage;
  expect(falcon.log.firstIndex).toBeGreaterThan(100);
  const target = recordMemory(new Uint8Array(4096));
  for (let index = 2; index < falcon.log.firstIndex; index++) {
    const length = falcon.readToShip(toLogIndex(index), target, 0);
    expect(length).toBe(1560);
    expect(target.bytes[56]).toBe((index - 2) % 256);
  }
  storage.close();
  // And a log that is larger than memory is taken up.
  const again = open('disk', 64 * 1024, 4096);
  expect(again.falcon.log.lastIndex).toBe(201);
  again.close();
});

it('a log that began anew behind a record begins there after a restart, too', () => {
  const storage = open('disk');
  lead(storage);
  propose(storage, 3, 10);
  const { falcon } = storage;
  const members = { voters: [self, toReplicaId(4)], nonVoters: [] };
  const executing = [{ replica: toReplicaId(4), incarnation: 9 }];
  falcon.state.becomeFollower();
  falcon.state.rebase({ index: toLogIndex(70), term: toTerm(1), checksum: 99, executing }, members);
  expect(falcon.takeMessage()).toBeUndefined();
  expect(storage.takeRebased()).toBe(70);
  storage.close();
  const again = open('disk');
  expect(again.falcon.log.lastIndex).toBe(70);
  expect(again.falcon.log.lastChecksum).toBe(99);
  expect(again.falcon.executingSet).toEqual(executing);
  expect(again.falcon.members).toEqual(members);
  again.close();
});
