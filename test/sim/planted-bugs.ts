/**
 * Bugs that earlier implementations of such protocols are known to have had, put into a replica on purpose.
 * Each must be found by the simulator within its stated number of seeds: a simulator that finds none of
 * them would prove nothing by finding nothing.
 */
import { IntakeResult } from '../../vmm/core/falcon/intake.ts';
import { recordIsIntact, recordMemory, stampRecord } from '../../vmm/core/falcon/record.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { Ack } from '../../vmm/core/falcon/signal.ts';
import type { Crc32c } from '../../vmm/core/falcon/crc32c.ts';
import type { ReplicaState } from '../../vmm/core/falcon/state.ts';
import { chooseFaults, type FaultPlan } from './fault-plan.ts';
import type { Machine } from './host-world.ts';
import type { Prng } from './prng.ts';
import { runSeed, SwarmFailure } from './swarm.ts';
import { NO_REPLICA, type LogIndex, type ReplicaId } from '../../vmm/core/ids.ts';

export interface PlantedBug {
  readonly name: string;
  /** What goes wrong by it, in the words of whoever finds that. */
  readonly says: RegExp;
  /** What the seed chose, made harder where the bug needs rare circumstances to show. */
  readonly harder?: Partial<FaultPlan>;
  readonly plant: (replica: FalconReplica, host: Machine) => void;
}

function redefine(target: object, property: string, get: () => unknown): void {
  Object.defineProperty(target, property, { get, configurable: true });
}

/** As `take`, with the checksums of the one record that it checks believed: each lies right before what it covers. */
function believing(state: ReplicaState, take: () => number): number {
  const { crc32c } = state.settings;
  let checks = 2;
  const believe: Crc32c = (bytes, offset, length, seed) => {
    if (checks-- <= 0) return crc32c(bytes, offset, length, seed);
    return new DataView(bytes.buffer, bytes.byteOffset).getInt32(offset - 4, true);
  };
  Object.assign(state.settings, { crc32c: believe });
  try {
    return take();
  } finally {
    Object.assign(state.settings, { crc32c });
  }
}

/** What the seed chose, and what makes it harder. */
export function hardPlan(harder: Partial<FaultPlan> = {}): (prng: Prng) => FaultPlan {
  return (prng) => ({ ...chooseFaults(prng), ...harder });
}

/** Runs seeds from 1 on until one fails as the bug must; says how, or else how the first one failed. */
export function hunt(bug: PlantedBug, seedsMax: number): string {
  let other: string | undefined;
  for (let seed = 1; seed <= seedsMax; seed++) {
    try {
      runSeed(seed, { plant: bug.plant, plan: hardPlan(bug.harder) });
    } catch (error) {
      if (!(error instanceof SwarmFailure)) throw error;
      if (bug.says.test(error.message)) return error.message;
      other ??= error.message;
    }
  }
  return other ?? 'No seed found anything';
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'a record is acknowledged before it is durable',
    says: /acknowledges record \d+, which its disk does not hold/,
    plant: ({ intake, state }) => (intake.ackIndex = () => state.matchedIndex),
  },
  {
    name: 'a record of an older term is committed because a majority holds it',
    says: /could lead without it/,
    harder: {
      durability: 'disk',
      timeScale: 1,
      ringSlots: 1,
      putDelayUsMax: 10_000,
      crashEveryUs: 60_000,
      restartUsMax: 20_000,
    },
    plant: ({ leadership, state }) =>
      (leadership.committable = (held) => (held > state.commitIndex ? held : state.commitIndex)),
  },
  {
    name: 'a vote is granted without comparing logs',
    says: /ends at \d+, \d+ were committed before|another record \d+ .* than was committed/,
    plant: ({ state }) => (state.logIsUpToDate = () => true),
  },
  {
    name: 'a replica votes twice in one term',
    says: /voted for \d+ and for \d+ in term/,
    plant: ({ election, state }) =>
      (election.mayVoteFor = (_candidate, lastTerm, lastIndex) =>
        state.role !== 'leader' && state.logIsUpToDate(lastTerm, lastIndex)),
  },
  {
    name: 'a vote is forgotten by a restart',
    says: /voted for \d+ and for \d+ in term/,
    harder: {
      durability: 'disk',
      timeScale: 1,
      crashEveryUs: 40_000,
      restartUsMax: 20_000,
      timeoutSpread: 4,
      messageLoss: 0.2,
    },
    plant: (replica) => {
      const original = replica.hardState.bind(replica);
      replica.hardState = () => ({ ...original(), votedFor: NO_REPLICA });
    },
  },
  {
    name: 'one replica less than a majority commits',
    says: /but only \d+ replicas hold it durably/,
    plant: ({ state }) =>
      redefine(state.membership, 'majority', () => Math.floor(state.membership.voters.length / 2)),
  },
  {
    name: 'a completed put is taken for one that arrived',
    says: /but only \d+ replicas hold it durably/,
    plant: (replica) => {
      const original = replica.shipped.bind(replica);
      replica.shipped = (peer, index) => {
        original(peer, index);
        const ack = new Ack();
        ack.term = replica.term;
        ack.index = index;
        ack.received = index;
        ack.checksum = replica.log.checksumAt(index);
        ack.processNumber = replica.leadership.processOf(peer);
        replica.receiveAck(peer, ack);
      };
    },
  },
  {
    name: 'records of a deposed leader are still taken',
    says: /but only \d+ replicas hold it durably|could lead without it|another record \d+ .* than was committed|the committed record that is here/,
    plant: (replica, host) => {
      host.readsOldRegions = true;
      const original = replica.receiveRecord.bind(replica);
      replica.receiveRecord = (source, offset, length) => {
        const memory = recordMemory(source.slice(offset, offset + length));
        if (length >= 56) {
          stampRecord(memory, 0, replica.term, 0 as LogIndex, replica.state.settings.crc32c);
        }
        return original(memory.bytes, 0, length);
      };
    },
  },
  {
    name: 'a backup believes the commit index for records it has not compared',
    says: /another record \d+ .* than was committed/,
    plant: ({ intake, state }) => {
      const original = intake.receiveHeartbeat.bind(intake);
      intake.receiveHeartbeat = (from, term, counter, commitIndex) => {
        original(from, term, counter, commitIndex);
        if (term === state.term) state.advanceCommit(Math.min(commitIndex, state.log.lastIndex) as LogIndex);
      };
    },
  },
  {
    name: 'torn and harmed records are believed',
    says: /but only \d+ replicas hold it durably|could lead without it|another record \d+ .* than was committed/,
    plant: ({ intake, state }) => {
      const original = intake.receiveRecord.bind(intake);
      intake.receiveRecord = (source, offset, length) =>
        believing(state, () => original(source, offset, length));
    },
  },
  {
    name: 'a standby serves because it leads',
    says: /serves although its guest is not VALID/,
    plant: (replica) =>
      redefine(replica, 'proposeRefusal', () => (replica.role === 'leader' ? undefined : 'not leading')),
  },
  {
    name: 'a guest that is not VALID is eligible',
    says: /serves although its guest is not VALID/,
    plant: ({ state }) =>
      redefine(state, 'eligible', () => state.executing.newest.some(({ replica }) => replica === state.self)),
  },
  {
    name: 'a replica that lost its log votes at once',
    says: /ends at \d+, \d+ were committed before/,
    harder: { durability: 'memory', crashEveryUs: 40_000, restartUsMax: 20_000, putDelayUsMax: 10_000 },
    plant: ({ state }) => redefine(state, 'logLost', () => false),
  },
  {
    name: 'a disk completion from before a truncation counts for what was written since',
    says: /acknowledges record \d+, which its disk does not hold/,
    harder: {
      durability: 'disk',
      timeScale: 1,
      fsyncUsMax: 400_000,
      partitionEveryUs: 80_000,
      crashEveryUs: 0,
      transferEveryUs: 150_000,
      proposeEveryUs: 500,
      proposeDuty: 1,
      ringSlots: 64,
    },
    plant: (replica) => {
      const original = replica.durable.bind(replica);
      replica.durable = (index) => original(index, replica.persistEpoch);
    },
  },
  {
    name: 'members change although the change before has not committed',
    says: /could lead without it/,
    harder: {
      durability: 'disk',
      timeScale: 1,
      membersEveryUs: 5_000,
      partitionEveryUs: 60_000,
      putDelayUsMax: 10_000,
    },
    plant: ({ changer }) => (changer.changeUnderWay = () => false),
  },
  {
    name: 'a list of members counts only once it has committed',
    says: /but only \d+ replicas hold it durably/,
    harder: { durability: 'disk', timeScale: 1, membersEveryUs: 10_000, partitionEveryUs: 60_000 },
    plant: ({ state }) => {
      const voters = (): readonly ReplicaId[] => state.membership.committed(state.commitIndex).voters;
      redefine(state.membership, 'voters', voters);
      redefine(state.membership, 'majority', () => Math.floor(voters().length / 2) + 1);
      state.membership.isVoter = (id) => voters().includes(id);
    },
  },
  {
    name: 'the acks of non-voters count',
    says: /but only \d+ replicas hold it durably/,
    harder: { durability: 'disk', timeScale: 1, membersEveryUs: 20_000 },
    plant: ({ state }) => {
      const { membership } = state;
      membership.majorityReaches = (values) => {
        const held = membership.all.map((id) => values[id] ?? 0).sort((one, other) => other - one);
        return held[membership.majority - 1] ?? 0;
      };
    },
  },
  {
    name: 'an executing replica is removed',
    says: /executes and has no vote/,
    harder: { membersEveryUs: 20_000 },
    plant: ({ changer }) => (changer.executes = () => false),
  },
  {
    name: 'inherited records are never acknowledged anew',
    says: /the leader does not serve: (term not begun|transfer under way)/,
    plant: ({ intake, state }) => {
      const receive = intake.receiveRecord.bind(intake);
      const ackIndex = intake.ackIndex.bind(intake);
      let term = state.term;
      // Up to here the log was there before this term's leader sent it, and was not committed.
      let inherited = 0;
      intake.receiveRecord = (source, offset, length) => {
        const { commitIndex, matchedIndex } = state;
        const result = receive(source, offset, length);
        if (state.term !== term) [term, inherited] = [state.term, 0];
        if (result === IntakeResult.held && state.matchedIndex > matchedIndex && inherited === 0)
          inherited = commitIndex + 1;
        return result;
      };
      intake.ackIndex = () =>
        inherited === 0 || state.commitIndex >= inherited
          ? ackIndex()
          : (Math.min(ackIndex(), inherited - 1) as LogIndex);
    },
  },
  {
    name: 'a record is checked where its writer can still change it',
    says: /but only \d+ replicas hold it durably|could lead without it|another record \d+ .* than was committed/,
    harder: { bytesChange: 0.05, putDelayUsMax: 500 },
    plant: ({ intake, state }) => {
      const original = intake.receiveRecord.bind(intake);
      intake.receiveRecord = (source, offset, length) => {
        const { crc32c } = state.settings;
        const intact = recordIsIntact(recordMemory(source), offset, length, crc32c);
        if (!intact) return IntakeResult.harmed;
        // What was checked is taken again, unchecked.
        return believing(state, () => original(source, offset, length));
      };
    },
  },
  {
    name: 'a deposed leader goes on for ever',
    says: /[2-9] leaders after the faults ended/,
    harder: { partitionEveryUs: 100_000 },
    plant: ({ state }) => {
      const raiseTerm = state.raiseTerm.bind(state);
      const becomeFollower = state.becomeFollower.bind(state);
      state.raiseTerm = (term) => {
        if (state.role !== 'leader') raiseTerm(term);
      };
      state.becomeFollower = () => {
        if (state.role !== 'leader') becomeFollower();
      };
    },
  },
  {
    name: 'having no connected majority is fatal',
    says: /No majority is connected/,
    harder: { partitionEveryUs: 100_000 },
    plant: ({ state }) => {
      const becomeFollower = state.becomeFollower.bind(state);
      state.becomeFollower = () => {
        if (state.role === 'leader' && state.leader === state.self)
          throw new Error('No majority is connected');
        becomeFollower();
      };
    },
  },
  {
    name: 'lengths are kept in too few bits',
    says: /nothing new is committed|the leader does not serve: term not begun/,
    harder: { payloadBytesMax: 3000, ringSlots: 1 },
    plant: ({ log }) => {
      const bytesAt = log.bytesAt.bind(log);
      log.bytesAt = (index) => bytesAt(index) & 0x7ff;
    },
  },
];
