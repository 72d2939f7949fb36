import { describe, expect, it } from 'vitest';
import { MessageKind } from '../../vmm/core/falcon/control-message.ts';
import { crc32cByTables } from '../../vmm/core/falcon/crc32c.ts';
import { RecordType } from '../../vmm/core/falcon/record-type.ts';
import { recordType } from '../../vmm/core/falcon/record.ts';
import type { LogIndex, ReplicaId, Term } from '../../vmm/core/ids.ts';
import type { FaultPlan } from './fault-plan.ts';
import { CLUSTER_ID } from './host-world.ts';
import { Scenario } from './scenario.ts';

const replica = (id: number): ReplicaId => id as ReplicaId;

describe('an election', () => {
  it('is won by the member that may execute, as it stands first', () => {
    const scenario = new Scenario();
    scenario.untilServes(0);
    expect(scenario.replica(0).term).toBe(1);
    expect(scenario.replica(1).leader).toBe(0);
  });

  it('begins at once, without any silence, when the process of the leader is known to have ended', () => {
    const scenario = new Scenario({ toldOfDeath: true }).protect();
    scenario.host(0).crash(true);
    expect(scenario.untilServes(1)).toBeLessThan(15_000);
    expect(scenario.replica(1).executingSet).toEqual([{ replica: 1, incarnation: 1 }]);
  });

  it('takes less than 100 ms when nobody is told, as soon as a second guest executes', () => {
    const scenario = new Scenario();
    const { queue } = scenario.cluster;
    scenario.untilServes(0);
    // Starting and loading state hold everybody up.
    for (let count = 0; count < 5; count++) {
      for (const id of [0, 1, 2]) scenario.host(id).pausedUntilUs = queue.nowUs + 190_000;
      scenario.run(300_000);
    }
    scenario.protect();
    scenario.host(0).crash(true);
    expect(scenario.untilServes(1)).toBeLessThan(100_000);
  });

  it('takes less than 100 ms when nobody is told, once heartbeats have come in time for a while', () => {
    const scenario = new Scenario().protect();
    scenario.run(30_000_000);
    scenario.host(0).crash(true);
    expect(scenario.untilServes(1)).toBeLessThan(70_000);
  });

  it('is not called for a leader that stands still no longer than it has before', () => {
    const scenario = new Scenario().protect();
    const { queue } = scenario.cluster;
    for (let count = 0; count < 50; count++) {
      scenario.host(0).pausedUntilUs = queue.nowUs + (count === 0 ? 30_000 : 80_000);
      scenario.run(500_000);
    }
    expect(scenario.replica(0).term).toBe(1);
    expect(scenario.replica(0).mayServe).toBe(true);
  });

  it('is not called by a replica that stood still itself', () => {
    const scenario = new Scenario().protect();
    const { queue } = scenario.cluster;
    scenario.run(5_000_000);
    for (let count = 0; count < 5; count++) {
      scenario.host(1).pausedUntilUs = queue.nowUs + 2_000_000;
      queue.runUntil(scenario.host(1).pausedUntilUs);
      scenario.run(200_000);
      expect(scenario.replica(1).role).toBe('follower');
    }
    expect(scenario.replica(1).term).toBe(1);
  });

  it('is not called by a replica that alone lost sight of the leader', () => {
    const scenario = new Scenario().protect();
    scenario.cluster.network.block(0, 2);
    scenario.run(1_000_000);
    expect(scenario.replica(0).mayServe).toBe(true);
    expect(scenario.replica(2).term).toBe(1);
    scenario.heal();
    const index = scenario.propose(0);
    scenario.untilCommitted(2, index);
    expect(scenario.replica(0).term).toBe(1);
  });

  it('waits for no commit index: what was acknowledged under the old leader is there under the new one', () => {
    const scenario = new Scenario().protect();
    for (let count = 0; count < 50; count++) scenario.propose(0);
    scenario.untilCommitted(0, scenario.replica(0).log.lastIndex);
    const last = scenario.replica(0).commitIndex;
    scenario.host(0).crash(true);
    scenario.untilServes(1);
    expect(scenario.replica(1).commitIndex).toBeGreaterThan(last);
  });
});

describe('a leader', () => {
  it('without a majority steps down, and its uncommitted records give way to those of its successor', () => {
    const scenario = new Scenario().protect();
    scenario.cutOff(0);
    const lost = scenario.propose(0, new Uint8Array(100));
    scenario.until('the old leader gave up', () => scenario.replica(0).role !== 'leader');
    scenario.untilServes(1);
    const kept = scenario.propose(1);
    expect(scenario.replica(0).log.lastIndex).toBe(lost);
    scenario.heal();
    scenario.untilCommitted(0, kept);
    const { log } = scenario.replica(0);
    expect(log.termAt(lost)).toBe(scenario.replica(1).term);
  });

  it('proposes nothing before the first record of its term has committed', () => {
    const scenario = new Scenario().protect();
    scenario.host(0).crash(true);
    scenario.until('replica 1 leads', () => scenario.host(1).replica?.role === 'leader');
    expect(scenario.replica(1).proposeRefusal).toBe('term not begun');
    expect(scenario.replica(1).mayServe).toBe(false);
    expect(scenario.replica(1).propose(16, 1, new Uint8Array(1))).toBe('term not begun');
    expect(scenario.replica(1).reserve(8)).toBe(-1);
    scenario.untilServes(1);
  });

  it('that is frozen and comes back commits nothing and steps down', () => {
    const scenario = new Scenario().protect();
    const { queue } = scenario.cluster;
    scenario.host(0).pausedUntilUs = queue.nowUs + 2_000_000;
    scenario.untilServes(1);
    const index = scenario.replica(0).propose(16, 1, new Uint8Array(1));
    expect(index).toBe(scenario.replica(0).commitIndex + 1);
    queue.runUntil(scenario.host(0).pausedUntilUs);
    scenario.until('it follows', () => scenario.replica(0).leader === 1);
    scenario.until('its record gave way', () => scenario.replica(0).log.termAt(index as LogIndex) === 2);
  });

  it('may let output leave for as long as a majority answers, and when it wakes from a freeze no more', () => {
    const scenario = new Scenario().protect();
    const leader = scenario.replica(0);
    const { stepDownUs } = leader.state.settings.times;
    for (let looks = 0; looks < 10; looks++) {
      scenario.run(stepDownUs);
      expect(leader.leaseEndUs).toBeGreaterThan(leader.state.nowUs);
    }
    scenario.host(0).pausedUntilUs = scenario.cluster.queue.nowUs + 10 * stepDownUs;
    scenario.run(5 * stepDownUs);
    expect(leader.role).toBe('leader');
    expect(leader.leaseEndUs).toBeLessThan(leader.state.nowUs + 5 * stepDownUs);
    scenario.until('it follows', () => leader.leader === 1);
  });

  it('is not one whose vote is not yet durable, and nothing is said before', () => {
    const scenario = new Scenario({ replicas: 1 });
    const { replica: alone } = scenario.host(0);
    scenario.until('it leads', () => alone?.role === 'leader');
    const fresh = new Scenario();
    const standing = fresh.replica(0);
    standing.election.stand(false, []);
    expect(standing.hardStateDirty).toBe(true);
    expect(standing.takeMessage()).toBeUndefined();
    standing.hardStatePersisted();
    expect(standing.takeMessage()).toBeDefined();
  });

  it('refuses a record that is too large, and one for which the log has no room, and goes on', () => {
    const scenario = new Scenario({ logStorageBytes: 32 * 1024 }).protect();
    expect(scenario.replica(0).propose(16, 1, new Uint8Array(5000))).toBe('too large');
    scenario.cluster.network.block(0, 1);
    scenario.cluster.network.block(0, 2);
    let refused: unknown = 0;
    for (let count = 0; count < 100 && typeof refused === 'number'; count++) {
      refused = scenario.replica(0).propose(16, 1, new Uint8Array(1000));
    }
    expect(refused).toBe('log full');
    scenario.heal();
    scenario.run(100_000);
    expect(scenario.propose(0)).toBeGreaterThan(0);
  });
});

describe('the executing set', () => {
  it('lets a standby with the longest log win the term, hand over at once, and never serve', () => {
    const scenario = new Scenario().protect();
    // Replica 1 lacks the last record, replica 2 has it, and the leader dies.
    scenario.cluster.network.block(0, 1);
    const last = scenario.propose(0);
    scenario.untilCommitted(0, last);
    scenario.host(0).crash(true);
    let standbyServed = false;
    scenario.until('replica 1 serves', () => {
      if (scenario.replica(2).mayServe) standbyServed = true;
      return scenario.replica(1).mayServe;
    });
    expect(standbyServed).toBe(false);
    expect(scenario.replica(1).term).toBe(3);
    expect(scenario.replica(1).log.lastIndex).toBeGreaterThan(last);
    expect(scenario.cluster.checker.elections).toBe(3);
  });

  it('leaves nobody serving when no eligible executor can be reached: NO-EXECUTOR, without circles', () => {
    const scenario = new Scenario();
    scenario.untilServes(0);
    scenario.host(0).crash(true);
    scenario.until('somebody leads', () => [1, 2].some((id) => scenario.replica(id).role === 'leader'));
    scenario.run(1_000_000);
    const leader = [1, 2].map((id) => scenario.replica(id)).find(({ role }) => role === 'leader');
    expect(leader?.executorState).toBe('none');
    expect(leader?.proposeRefusal).toBe('not executing');
    expect(leader?.term).toBe(2);
  });

  it('changes once at a time, and the leader obeys the stricter of the old and the new', () => {
    const scenario = new Scenario().protect();
    const leader = scenario.replica(0);
    scenario.cutOff(0);
    expect(leader.proposeExecutingSet([{ replica: replica(1), incarnation: 1 }])).toBeGreaterThan(0);
    // Not yet committed, and already obeyed.
    expect(leader.mayServe).toBe(false);
    expect(leader.proposeRefusal).toBe('not executing');
    scenario.heal();
    scenario.untilServes(1);
  });

  it('does not name a guest that is another process than the one that was VALID', () => {
    const scenario = new Scenario().protect();
    scenario.replica(1).setExecutor(2, true);
    scenario.host(1).step();
    expect(scenario.replica(1).state.eligible).toBe(false);
    scenario.run(20_000);
    expect(scenario.replica(0).transferTo(replica(1), [])).toBe('not executing');
  });

  it('is taken back with the record that carried it when that record is truncated', () => {
    const scenario = new Scenario().protect();
    scenario.cutOff(0);
    scenario.replica(0).proposeExecutingSet([{ replica: replica(0), incarnation: 1 }]);
    expect(scenario.replica(0).executingSet).toHaveLength(1);
    scenario.untilServes(1);
    scenario.heal();
    scenario.until(
      'the old leader follows',
      () => scenario.replica(0).commitIndex === scenario.replica(1).commitIndex,
    );
    expect(scenario.replica(0).executingSet).toEqual([{ replica: 1, incarnation: 1 }]);
  });
});

describe('a planned transfer', () => {
  it('moves the term without any timeout, and its first record names both', () => {
    const scenario = new Scenario().protect();
    scenario.run(20_000);
    const both = scenario.replica(0).executingSet;
    expect(scenario.replica(0).transferTo(replica(1), both)).toBeUndefined();
    expect(scenario.replica(0).mayServe).toBe(false);
    scenario.host(0).step();
    expect(scenario.untilServes(1)).toBeLessThan(10_000);
    expect(scenario.replica(1).executingSetCommitted).toEqual(both);
    scenario.until('the old leader follows', () => scenario.replica(0).leader === 1);
  });

  it('names the peer alone where both guests are not equal, and nobody who does not execute', () => {
    const scenario = new Scenario().protect();
    scenario.run(20_000);
    const leader = scenario.replica(0);
    expect(leader.transferTo(replica(1), [{ replica: replica(0), incarnation: 1 }])).toBe('not executing');
    const another = [...leader.executingSet, { replica: replica(2), incarnation: 1 }];
    expect(leader.transferTo(replica(1), another)).toBe('not executing');
    expect(leader.transferTo(replica(1), [])).toBeUndefined();
    scenario.host(0).step();
    scenario.untilServes(1);
    expect(scenario.replica(1).executingSetCommitted).toEqual([{ replica: 1, incarnation: 1 }]);
    expect(scenario.replica(0).mayServe).toBe(false);
  });

  it('that does not come about lets the leader serve again only after a fresh record of its own', () => {
    const scenario = new Scenario().protect();
    scenario.run(20_000);
    const before = scenario.replica(0).log.lastIndex;
    // The word to stand is lost; everything else gets through.
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, messageLoss: 1 };
    expect(scenario.replica(0).transferTo(replica(1), scenario.replica(0).executingSet)).toBeUndefined();
    scenario.until('it was given up', () => !scenario.replica(0).transfer.underWay);
    const { log } = scenario.replica(0);
    expect(log.lastIndex).toBe(before + 1);
    expect(recordType(log.memory, log.offsetAt(log.lastIndex))).toBe(RecordType.noOperation);
    scenario.untilServes(0);
    expect(scenario.replica(0).commitIndex).toBe(before + 1);
  });
});

describe('a backup', () => {
  it('that returns with all records already there acknowledges them, although nothing new is proposed', () => {
    const scenario = new Scenario().protect();
    for (let count = 0; count < 20; count++) scenario.propose(0);
    const { lastIndex } = scenario.replica(0).log;
    scenario.untilCommitted(1, lastIndex);
    scenario.host(1).crash(false);
    scenario.run(10_000);
    scenario.cluster.boot(scenario.host(1));
    scenario.until('it is level', () => scenario.replica(0).leadership.matchOf(replica(1)) === lastIndex);
    scenario.untilCommitted(1, lastIndex);
  });

  it('that was away for long is brought up from the durable log while commit goes on', () => {
    const scenario = new Scenario({ logStorageBytes: 32 * 1024 }).protect();
    scenario.host(2).crash(false);
    for (let count = 0; count < 300; count++)
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(500)));
    expect(scenario.replica(0).log.firstIndex).toBeGreaterThan(100);
    scenario.cluster.boot(scenario.host(2));
    scenario.untilCommitted(2, scenario.replica(0).commitIndex);
  });

  it('that is told to begin anew behind a record which it holds knows that this one is committed', () => {
    const scenario = new Scenario().protect();
    scenario.cutOff(1);
    scenario.cluster.network.block(2, 0);
    const index = scenario.propose(0);
    scenario.until('replica 2 holds it', () => scenario.replica(2).log.lastIndex === index);
    expect(scenario.replica(2).commitIndex).toBeLessThan(index);
    const leader = scenario.replica(0);
    leader.state.send(replica(2), { kind: MessageKind.rebase, toProcess: 1, members: leader.members });
    let said = leader.takeMessage();
    for (let next = said; next !== undefined; next = leader.takeMessage()) said = next;
    expect(scenario.replica(2).receive(replica(0), said?.bytes ?? new Uint8Array(0))).toBeUndefined();
    expect(scenario.replica(2).commitIndex).toBe(index);
    expect(scenario.replica(2).takeRebased()).toBeUndefined();
  });

  it('gets what a completed put never brought', () => {
    const scenario = new Scenario().protect();
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putLost: 1 };
    const index = scenario.propose(0);
    scenario.run(1_000);
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putLost: 0 };
    expect(scenario.untilCommitted(0, index)).toBeLessThan(200_000);
    expect(scenario.replica(0).term).toBe(1);
  });

  it('takes no record of which only a part has arrived, and gets the whole of it', () => {
    const scenario = new Scenario().protect();
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putCut: 1 };
    const index = scenario.propose(0, new Uint8Array(1000).fill(7));
    scenario.run(1_000);
    expect(scenario.replica(1).log.lastIndex).toBe(index - 1);
    expect(scenario.replica(0).commitIndex).toBe(index - 1);
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putCut: 0 };
    expect(scenario.untilCommitted(0, index)).toBeLessThan(200_000);
    expect(scenario.replica(0).term).toBe(1);
  });

  it('takes a record that is torn at first once all of it is there', () => {
    const scenario = new Scenario().protect();
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putTorn: 1 };
    for (let count = 0; count < 50; count++)
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(1000).fill(count)));
    const { lastIndex, lastChecksum } = scenario.replica(0).log;
    scenario.untilCommitted(1, lastIndex);
    expect(scenario.replica(1).log.checksumAt(lastIndex)).toBe(lastChecksum);
  });

  it('is not led astray by what was put before and comes once more, late', () => {
    const scenario = new Scenario({ putStale: 1, ringSlots: 1 }).protect();
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putStale: 1 };
    for (let count = 0; count < 50; count++)
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(100).fill(count)));
    const { lastIndex, lastChecksum } = scenario.replica(0).log;
    scenario.untilCommitted(1, lastIndex);
    scenario.run(100_000);
    expect(scenario.replica(1).log.lastIndex).toBe(lastIndex);
    expect(scenario.replica(1).log.checksumAt(lastIndex)).toBe(lastChecksum);
  });

  it('holds what arrived although it was reported as failed, and gets it no second time', () => {
    const scenario = new Scenario().protect();
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putDenied: 1 };
    const index = scenario.propose(0);
    scenario.until('it is there', () => scenario.replica(1).log.lastIndex === index);
    scenario.run(30_000);
    scenario.cluster.network.plan = { ...scenario.cluster.network.plan, putDenied: 0 };
    scenario.untilCommitted(1, index);
    expect(scenario.replica(1).log.lastIndex).toBe(index);
    expect(scenario.replica(0).term).toBe(1);
  });

  it('whose puts wait for its own progress gets them when it goes on, and holds nobody up until then', () => {
    const scenario = new Scenario({ putsNeedProgress: true }).protect();
    const { queue } = scenario.cluster;
    scenario.host(2).pausedUntilUs = queue.nowUs + 300_000;
    const index = scenario.propose(0);
    expect(scenario.untilCommitted(0, index)).toBeLessThan(5_000);
    expect(scenario.replica(2).log.lastIndex).toBe(index - 1);
    queue.runUntil(scenario.host(2).pausedUntilUs);
    scenario.untilCommitted(2, index);
  });

  it('with a slow disk does not hold up the commit of the others', () => {
    const scenario = new Scenario().protect();
    scenario.host(2).disk.slowdown = 100_000;
    expect(scenario.untilCommitted(0, scenario.propose(0))).toBeLessThan(5_000);
  });
});

describe('a replica that lost its log', () => {
  const inMemory = (overrides: Partial<FaultPlan> = {}): Scenario =>
    new Scenario({ durability: 'memory', ...overrides }).protect();

  it('has no vote until the leader has brought it level', () => {
    const scenario = inMemory();
    for (let count = 0; count < 20; count++) scenario.propose(0);
    scenario.untilCommitted(1, scenario.replica(0).log.lastIndex);
    scenario.host(2).crash(false);
    scenario.cutOff(2);
    scenario.cluster.boot(scenario.host(2));
    scenario.run(500_000);
    expect(scenario.replica(2).state.logLost).toBe(true);
    expect(scenario.replica(2).role).toBe('follower');
    expect(scenario.replica(2).election.mayVoteFor(replica(1), 99 as Term, 99 as LogIndex)).toBe(false);
    scenario.heal();
    scenario.until('it is level', () => !scenario.replica(2).state.logLost);
    expect(scenario.replica(2).log.lastIndex).toBe(scenario.replica(0).log.lastIndex);
  });

  it('is not elected over the one that remembers, and nothing acknowledged is lost', () => {
    const scenario = inMemory();
    scenario.cluster.network.block(0, 2);
    const last = scenario.propose(0);
    scenario.untilCommitted(0, last);
    // The record lives in 0 and 1 only. 1 forgets, 0 is cut off: 1 and 2 are a majority and may not elect.
    scenario.cutOff(0);
    scenario.host(1).crash(false);
    scenario.cluster.boot(scenario.host(1));
    scenario.run(1_000_000);
    expect([1, 2].map((id) => scenario.replica(id).role)).not.toContain('leader');
    scenario.heal();
    scenario.until('the record is everywhere', () =>
      [0, 1, 2].every((id) => scenario.replica(id).commitIndex >= last),
    );
  });

  it('takes no word that was meant for the process before it', () => {
    const scenario = inMemory();
    const leader = scenario.replica(0);
    leader.regionLost(replica(2));
    leader.tick(scenario.host(0).nowUs);
    const old = leader.takeMessage()?.bytes ?? new Uint8Array(0);
    scenario.host(2).crash(false);
    scenario.cutOff(2);
    scenario.cluster.boot(scenario.host(2));
    expect(scenario.replica(2).receive(replica(0), old)).toBeUndefined();
    expect(scenario.replica(2).state.levelAtIndex).toBeUndefined();
  });

  it('begins its log where that of the leader does, when no memory reaches back further, and is not VALID then', () => {
    const scenario = inMemory({ logStorageBytes: 32 * 1024 });
    scenario.host(1).crash(false);
    for (let count = 0; count < 200; count++)
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(500)));
    scenario.cluster.boot(scenario.host(1));
    scenario.until('it is level', () => !scenario.replica(1).state.logLost);
    expect(scenario.replica(1).log.firstIndex).toBeGreaterThan(100);
    expect(scenario.replica(1).executingSet).toEqual(scenario.replica(0).executingSet);
    expect(scenario.host(1).guest?.valid).toBe(false);
    expect(scenario.replica(1).state.eligible).toBe(false);
  });
});

describe('a control message', () => {
  it('of another cluster, another protocol version, or under a false name is refused by name', () => {
    const scenario = new Scenario();
    scenario.until('there is a message', () => {
      scenario.replica(0).election.askPreVotes();
      return true;
    });
    const message = scenario.replica(0).takeMessage();
    expect(message?.to).toBe(1);
    const bytes = message?.bytes ?? new Uint8Array(0);
    expect(scenario.replica(1).receive(replica(0), bytes)).toBeUndefined();
    expect(scenario.replica(1).receive(replica(2), bytes)).toBe('replica id');
    expect(scenario.replica(2).receive(replica(0), bytes)).toBe('replica id');
    const sealed = (change: (view: DataView) => void): Uint8Array => {
      const copy = bytes.slice();
      const view = new DataView(copy.buffer);
      change(view);
      view.setInt32(4, crc32cByTables(copy, 8, copy.length - 8, 0), true);
      return copy;
    };
    const anotherVersion = sealed((view) => view.setUint16(8, view.getUint16(8, true) + 1, true));
    const anotherCluster = sealed((view) => view.setBigUint64(12, CLUSTER_ID + 1n, true));
    expect(scenario.replica(1).receive(replica(0), anotherVersion)).toBe('protocol version');
    expect(scenario.replica(1).receive(replica(0), anotherCluster)).toBe('cluster id');
    expect(scenario.replica(1).receive(replica(0), bytes.subarray(1))).toBe('malformed');
    expect(scenario.replica(1).receive(replica(0), new Uint8Array(0))).toBe('malformed');
  });

  it('from an earlier process of a replica is passed over', () => {
    const scenario = new Scenario().protect();
    scenario.replica(1).election.askPreVotes();
    const old = scenario.replica(1).takeMessage()?.bytes ?? new Uint8Array(0);
    scenario.host(1).crash(false);
    scenario.cluster.boot(scenario.host(1));
    scenario.until('it has a region again', () => scenario.replica(0).peerRegionVersion(replica(1)) > 1);
    const version = scenario.replica(0).peerRegionVersion(replica(1));
    scenario.replica(0).receive(replica(1), old);
    scenario.run(50_000);
    expect(scenario.replica(0).peerRegionVersion(replica(1))).toBe(version);
  });
});

describe('the applier', () => {
  it('may not claim records that are not committed', () => {
    const scenario = new Scenario().protect();
    scenario.cutOff(0);
    const index = scenario.propose(0);
    expect(() => scenario.replica(0).applied(index)).toThrow(/only committed records/);
    expect(() => scenario.replica(0).applied((index - 1) as LogIndex)).not.toThrow();
  });
});
