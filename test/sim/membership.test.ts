/** Members that come and go: what each rule of membership-change.ts is for, one scenario each. */
import { describe, expect, it } from 'vitest';
import { toReplicaId, type LogIndex, type ReplicaId } from '../../vmm/core/ids.ts';
import type { MembershipChange } from '../../vmm/core/falcon/membership-change.ts';
import type { Host } from './host.ts';
import { Scenario } from './scenario.ts';

const replica = (id: number): ReplicaId => id as ReplicaId;

/** Proposes the change at `id` and runs until it has committed there. */
function change(scenario: Scenario, id: number, wanted: MembershipChange): LogIndex {
  const index = scenario.replica(id).proposeMembers(wanted);
  if (typeof index !== 'number') throw new Error(`Refused: ${index}`);
  scenario.host(id).step();
  scenario.untilCommitted(id, index);
  return index;
}

/** A fresh machine as a non-voter, up to date. */
function join(scenario: Scenario, leader: number): Host {
  const id = toReplicaId(scenario.cluster.hosts.length);
  const told = scenario.replica(leader).members;
  change(scenario, leader, { kind: 'add', replica: id });
  const host = scenario.cluster.addHost(told);
  const { commitIndex } = scenario.replica(leader);
  scenario.until('it is level', () => (host.replica?.commitIndex ?? 0) >= commitIndex);
  const { leadership } = scenario.replica(leader);
  scenario.until(
    'the leader knows',
    () => leadership.matchOf(id) >= commitIndex && leadership.peerIsReachable(id),
  );
  return host;
}

function grow(scenario: Scenario, leader: number): Host {
  const host = join(scenario, leader);
  change(scenario, leader, { kind: 'promote', replica: host.id });
  return host;
}

describe('a new replica', () => {
  it('is caught up from the durable log as a non-voter, and has a vote once it is level', () => {
    const scenario = new Scenario({ logStorageBytes: 32 * 1024 }).protect();
    for (let count = 0; count < 200; count++) {
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(500)));
    }
    expect(scenario.replica(0).log.firstIndex).toBeGreaterThan(100);
    const host = join(scenario, 0);
    expect(host.disk.lastIndex).toBeGreaterThan(200);
    expect(host.disk.peek(1)).toBeDefined();
    expect(scenario.replica(0).members).toEqual({ voters: [0, 1, 2], nonVoters: [3] });
    change(scenario, 0, { kind: 'promote', replica: host.id });
    expect(scenario.replica(0).membersCommitted).toEqual({ voters: [0, 1, 2, 3], nonVoters: [] });
    scenario.until('it knows that it has a vote', () => host.replica?.members.voters.length === 4);
  });

  it('begins its log behind the checkpoint when the durable log begins there, and outlives a crash so', () => {
    const scenario = new Scenario({ logStorageBytes: 32 * 1024 }).protect();
    for (let count = 0; count < 200; count++) {
      scenario.untilCommitted(0, scenario.propose(0, new Uint8Array(500)));
    }
    scenario.run(20_000);
    while (scenario.host(0).disk.base.index < 150) scenario.host(0).checkpoint();
    const host = join(scenario, 0);
    expect(host.disk.base.index).toBeGreaterThan(100);
    expect(host.replica?.members.nonVoters).toEqual([3]);
    host.crash(false);
    scenario.cluster.boot(host);
    scenario.untilCommitted(3, scenario.replica(0).commitIndex);
    expect(host.disk.base.index).toBeGreaterThan(100);
  });

  it('counts for nothing before: its ack commits no record, its silence holds none up', () => {
    const scenario = new Scenario().protect();
    const host = join(scenario, 0);
    scenario.cluster.network.block(0, 1);
    scenario.cluster.network.block(0, 2);
    const index = scenario.propose(0);
    scenario.until('the non-voter has it', () => host.replica?.log.lastIndex === index);
    scenario.run(20_000);
    expect(scenario.replica(0).commitIndex).toBe(index - 1);
    scenario.heal();
    scenario.cutOff(3);
    scenario.untilCommitted(0, scenario.propose(0));
  });

  it('stands for nothing, however long it hears nothing', () => {
    const scenario = new Scenario().protect();
    const host = join(scenario, 0);
    scenario.cutOff(3);
    scenario.run(2_000_000);
    expect(host.replica?.role).toBe('follower');
    expect(host.replica?.term).toBe(1);
  });

  it('gets no vote while it lacks records', () => {
    const scenario = new Scenario().protect();
    change(scenario, 0, { kind: 'add', replica: replica(3) });
    expect(scenario.replica(0).proposeMembers({ kind: 'promote', replica: replica(3) })).toBe('not level');
  });

  it('may win a term against the wish of nobody who has not yet heard of it', () => {
    const scenario = new Scenario().protect();
    // Replica 2 misses the promotion, and the leader that made it dies.
    const host = join(scenario, 0);
    scenario.cutOff(2);
    change(scenario, 0, { kind: 'promote', replica: host.id });
    scenario.until('it knows', () => host.replica?.members.voters.length === 4);
    scenario.run(50_000);
    scenario.host(0).crash(true);
    scenario.heal();
    const leads = (id: number): boolean => scenario.host(id).replica?.role === 'leader';
    scenario.until('someone who knows leads', () => leads(1) || leads(3));
    scenario.until('replica 2 knows', () => scenario.replica(2).members.voters.length === 4);
  });
});

describe('a change of members', () => {
  it('takes 3 to 5 and back to 3, and commits by the majority of the list that it makes', () => {
    const scenario = new Scenario().protect();
    const fourth = grow(scenario, 0);
    const fifth = grow(scenario, 0);
    expect(scenario.replica(0).members.voters).toEqual([0, 1, 2, 3, 4]);
    scenario.cutOff(1);
    scenario.cutOff(2);
    scenario.untilCommitted(0, scenario.propose(0));
    scenario.heal();
    scenario.run(50_000);
    change(scenario, 0, { kind: 'remove', replica: fourth.id });
    change(scenario, 0, { kind: 'remove', replica: fifth.id });
    expect(scenario.replica(0).membersCommitted.voters).toEqual([0, 1, 2]);
    scenario.cutOff(3);
    scenario.cutOff(4);
    scenario.cutOff(2);
    scenario.untilCommitted(0, scenario.propose(0));
  });

  it('is refused before the first record of the term has committed, and while another one is under way', () => {
    const scenario = new Scenario().protect();
    scenario.host(0).crash(true);
    scenario.until('replica 1 leads', () => scenario.host(1).replica?.role === 'leader');
    const early = scenario.replica(1).proposeMembers({ kind: 'add', replica: replica(7) });
    expect(early).toBe('term not begun');
    scenario.untilServes(1);
    scenario.cutOff(1);
    expect(scenario.replica(1).proposeMembers({ kind: 'add', replica: replica(7) })).toBeGreaterThan(0);
    const second = scenario.replica(1).proposeMembers({ kind: 'add', replica: replica(8) });
    expect(second).toBe('set change under way');
    expect(scenario.replica(1).proposeExecutingSet([])).toBe('set change under way');
  });

  it('is refused when it makes no sense, each time by name', () => {
    const leader = new Scenario().protect().replica(0);
    expect(leader.proposeMembers({ kind: 'add', replica: replica(2) })).toBe('already a member');
    expect(leader.proposeMembers({ kind: 'add', replica: replica(255) })).toBe('already a member');
    expect(leader.proposeMembers({ kind: 'promote', replica: replica(2) })).toBe('already a member');
    expect(leader.proposeMembers({ kind: 'promote', replica: replica(9) })).toBe('not a member');
    expect(leader.proposeMembers({ kind: 'remove', replica: replica(9) })).toBe('not a member');
    expect(leader.proposeMembers({ kind: 'remove', replica: replica(0) })).toBe('executes');
    expect(leader.proposeMembers({ kind: 'remove', replica: replica(1) })).toBe('executes');
  });

  it('is refused where no majority of those that remain answers', () => {
    const scenario = new Scenario({ replicas: 5 }).protect();
    scenario.host(3).crash(true);
    scenario.host(4).crash(true);
    scenario.run(300_000);
    const leader = scenario.replica(0);
    expect(leader.proposeMembers({ kind: 'remove', replica: replica(2) })).toBe('no majority');
    change(scenario, 0, { kind: 'remove', replica: replica(3) });
    expect(leader.membersCommitted.voters).toEqual([0, 1, 2, 4]);
  });

  it('is taken back with the record that carried it when that record is truncated', () => {
    const scenario = new Scenario().protect();
    scenario.cutOff(0);
    expect(scenario.replica(0).proposeMembers({ kind: 'add', replica: replica(7) })).toBeGreaterThan(0);
    expect(scenario.replica(0).members.nonVoters).toEqual([7]);
    scenario.untilServes(1);
    scenario.heal();
    scenario.until('the old leader follows', () => scenario.replica(0).leader === 1);
    scenario.until('its list is the old one', () => scenario.replica(0).members.nonVoters.length === 0);
  });

  it('that removes the leader lets it lead until it has committed, and no longer', () => {
    const scenario = new Scenario();
    scenario.untilServes(0);
    // The only executor ends: whoever leads now serves nothing, and may be removed.
    const fourth = grow(scenario, 0);
    scenario.host(0).crash(true);
    const leading = (): number => [1, 2, 3].find((id) => scenario.host(id).replica?.role === 'leader') ?? -1;
    scenario.until('somebody leads', () => leading() !== -1);
    const old = leading();
    const others = [1, 2, 3].filter((id) => id !== old);
    scenario.until('its term has begun', () => scenario.replica(old).proposeRefusal === 'not executing');
    scenario.run(20_000);
    const index = scenario.replica(old).proposeMembers({ kind: 'remove', replica: replica(old) });
    expect(index).toBeGreaterThan(0);
    expect(scenario.replica(old).role).toBe('leader');
    scenario.host(old).step();
    // Three of the list {0, and the two others}: replica 0 is down, so both others must hold it.
    scenario.until('it steps down', () => scenario.replica(old).role === 'follower');
    expect(scenario.replica(old).membersCommitted.voters).not.toContain(old);
    scenario.until('another one leads', () => others.includes(leading()));
    scenario.run(1_000_000);
    expect(scenario.replica(old).role).toBe('follower');
    expect(fourth.running).toBe(true);
  });

  it('that only the removed replica has seen does not stop the others: it wins, commits it, and leads no longer', () => {
    const scenario = new Scenario().protect();
    grow(scenario, 0);
    scenario.run(50_000);
    // Replica 2 alone holds the record that removes it; without its vote or its log nobody has a majority.
    scenario.cluster.network.block(0, 1);
    scenario.cluster.network.block(0, 3);
    const index = scenario.replica(0).proposeMembers({ kind: 'remove', replica: replica(2) });
    scenario.host(0).step();
    scenario.until('replica 2 has it', () => scenario.replica(2).log.lastIndex === index);
    // What waits on the links of replica 0 never arrives: they stay cut.
    scenario.host(0).crash(true);
    scenario.untilServes(1);
    expect(scenario.replica(1).membersCommitted.voters).toEqual([0, 1, 3]);
    scenario.until('replica 2 leads no longer', () => scenario.replica(2).role !== 'leader');
    const { term } = scenario.replica(1);
    scenario.run(1_000_000);
    expect(scenario.replica(1).mayServe).toBe(true);
    expect(scenario.replica(1).term).toBe(term);
  });

  it('that removes a replica which never hears of it leaves the others undisturbed', () => {
    const scenario = new Scenario().protect();
    const fourth = grow(scenario, 0);
    scenario.cutOff(3);
    change(scenario, 0, { kind: 'remove', replica: fourth.id });
    scenario.run(500_000);
    scenario.heal();
    scenario.run(1_000_000);
    expect(scenario.replica(0).role).toBe('leader');
    expect(scenario.replica(0).term).toBe(1);
    scenario.untilCommitted(0, scenario.propose(0));
  });
});

describe('a replica id', () => {
  it('that two processes use at once is refused by whoever hears both, and by the one that hears the other', () => {
    const newerTerm = 9;
    const say = (scenario: Scenario, from: number, to: number): Uint8Array => {
      const speaker = scenario.replica(from);
      speaker.state.send(replica(to), { kind: newerTerm });
      let last = speaker.takeMessage();
      for (let next = last; next !== undefined; next = speaker.takeMessage()) last = next;
      return last?.bytes ?? new Uint8Array(0);
    };
    const scenario = new Scenario().protect();
    const twin = new Scenario({}, 2).protect();
    expect(twin.replica(1).state.settings.processNumber).toBe(1);
    expect(scenario.replica(0).receive(replica(1), say(scenario, 1, 0))).toBeUndefined();
    expect(scenario.replica(0).receive(replica(1), say(twin, 1, 0))).toBe('duplicate replica id');
    expect(scenario.replica(0).receive(replica(1), say(scenario, 1, 0))).toBeUndefined();
    expect(twin.replica(1).receive(replica(1), say(scenario, 1, 0))).toBe('replica id');
    const toItself = say(scenario, 1, 1);
    expect(twin.replica(1).receive(replica(1), toItself)).toBe('duplicate replica id');
  });
});
