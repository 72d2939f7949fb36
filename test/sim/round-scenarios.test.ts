/** Each hole that a rule of the protocol closes, met on purpose. */
import { describe, expect, it } from 'vitest';
import { MessageType } from '../../vmm/core/rounds/exchange-message.ts';
import { toReplicaId } from '../../vmm/core/ids.ts';
import { RoundCluster } from './round-cluster.ts';
import type { RoundHost } from './round-host.ts';
import { calmRounds, chooseRoundPlan, type RoundPlan } from './round-plan.ts';

const PATIENCE_US = 3_000_000;

class RoundScenario extends RoundCluster {
  constructor(plan: Partial<RoundPlan> = {}) {
    super(1, (prng) => ({
      ...calmRounds(chooseRoundPlan(prng)),
      mode: 'vsmr',
      pageCount: 40,
      thirdGuest: false,
      roundUsMax: 200,
      proposeIdleUsMax: 1_000,
      crashTakesGuest: 0,
      toldOfDeath: true,
      restartUsMax: 1_000_000_000,
      partBytes: 200,
      loadWrites: 0,
      ...plan,
    }));
    for (const host of this.hosts) this.boot(host);
    this.until('both execute', () => this.at(1).replica?.executingSetCommitted.length === 2);
    this.until('rounds are run', () => this.checker.equalities > 3);
  }

  at(id: number): RoundHost {
    const host = this.hosts[id];
    if (host === undefined) throw new RangeError(`There is no replica ${id}`);
    return host;
  }

  until(what: string, holds: () => boolean): void {
    const startUs = this.queue.nowUs;
    while (!holds()) {
      if (this.queue.nowUs - startUs > PATIENCE_US) throw new Error(`It never came about that ${what}`);
      this.queue.runUntil(this.queue.nowUs + 20);
    }
  }

  runOn(us: number): void {
    this.queue.runUntil(this.queue.nowUs + us);
  }

  cut(one: number, other: number): void {
    this.network.block(one, other);
    this.network.block(other, one);
  }

  /** Loses every message of this type. */
  lose(type: number): void {
    for (const host of this.hosts) {
      const send = host.send.bind(host);
      host.send = (to, mail, bytes) =>
        mail === 'exchange' && bytes[0] === type ? true : send(to, mail, bytes);
    }
  }
}

describe('a leader that dies in a round', () => {
  it('before the backup has all pages: the backup goes on from its own state, and no client saw the other', () => {
    const scenario = new RoundScenario();
    scenario.lose(MessageType.end);
    const { checker } = scenario;
    scenario.until('a round waits to be applied', () => scenario.at(0).loop?.reconciling === true);
    scenario.runOn(3_000);
    const seen = checker.releases;
    const equal = checker.equalities;
    scenario.runOn(20_000);
    expect(checker.releases).toBe(seen);
    scenario.at(0).crash(true);
    scenario.until('the backup serves', () => scenario.at(1).runner?.serving === true);
    expect(checker.equalities).toBe(equal);
    scenario.until('its rounds are seen', () => checker.releases > seen + 5);
  });

  it('after the backup has applied: the same from there, and what it did not release is never contradicted', () => {
    const scenario = new RoundScenario();
    scenario.lose(MessageType.applied);
    const { checker } = scenario;
    const equal = checker.equalities;
    scenario.until('the backup has applied', () => checker.equalities > equal);
    scenario.at(0).crash(true);
    const index = scenario.at(1).runner?.appliedIndex ?? 0;
    scenario.until('the backup serves', () => scenario.at(1).runner?.serving === true);
    expect(scenario.at(1).runner?.appliedIndex).toBeGreaterThan(index);
  });
});

describe('the removal of a backup', () => {
  it('lets no output out before it has committed', () => {
    const scenario = new RoundScenario();
    scenario.cut(0, 1);
    scenario.runOn(100_000);
    scenario.cut(0, 2);
    const leader = scenario.at(0);
    let released = 0;
    const { checker } = scenario;
    const watch = checker.released.bind(checker);
    checker.released = (host, frame) => {
      if (host === leader) released++;
      watch(host, frame);
    };
    scenario.until('the removal is proposed', () => leader.replica?.executingSet.length === 1);
    expect(leader.replica?.executingSetCommitted).toHaveLength(2);
    scenario.until('the leader steps down', () => leader.replica?.role !== 'leader');
    expect(released).toBe(0);
    scenario.until('the backup serves', () => scenario.at(1).runner?.serving === true);
  });

  it('that has committed leaves it no successor, although its own log does not say so', () => {
    const scenario = new RoundScenario();
    scenario.cut(0, 1);
    scenario.cut(1, 2);
    scenario.until(
      'the leader goes on alone',
      () => scenario.at(0).replica?.executingSetCommitted.length === 1,
    );
    const seen = scenario.checker.releases;
    scenario.until('clients see more', () => scenario.checker.releases > seen + 3);
    expect(scenario.at(1).replica?.executingSet).toHaveLength(2);
    scenario.at(0).crash(true);
    scenario.network.unblock(1, 2);
    scenario.network.unblock(2, 1);
    scenario.runOn(1_000_000);
    const states = [1, 2].map((id) => scenario.at(id).replica?.executorState);
    expect(states).toContain('none');
    expect(scenario.at(1).runner?.serving).toBe(false);
  });
});

describe('VALID', () => {
  it('belongs to one QEMU: a new one is not named, serves nothing, and comes in by being made equal', () => {
    const scenario = new RoundScenario();
    scenario.at(1).crash(true);
    scenario.boot(scenario.at(1));
    expect(scenario.at(1).incarnation).toBe(2);
    expect(scenario.at(1).replica?.state.eligible).toBe(false);
    scenario.until('its new guest is named', () =>
      (scenario.at(0).replica?.executingSetCommitted ?? []).some(
        ({ replica, incarnation }) => replica === 1 && incarnation === 2,
      ),
    );
    expect(scenario.at(1).exchange?.set.valid).toBe(true);
  });

  it('is lost by dying in the middle of applying, and nobody serves from that guest', () => {
    const scenario = new RoundScenario();
    const { guest, exchange } = scenario.at(1);
    const invalidate = guest?.invalidate.bind(guest);
    if (guest === undefined || invalidate === undefined) throw new Error('Replica 1 has a guest');
    guest.invalidate = () => {
      invalidate();
      guest.beforeStore = () => scenario.at(1).die();
    };
    scenario.until('the backup is gone', () => scenario.at(1).replica === undefined);
    expect(exchange?.set.valid).toBe(false);
    guest.invalidate = invalidate;
    scenario.at(0).crash(true);
    scenario.boot(scenario.at(1));
    scenario.runOn(1_000_000);
    expect(scenario.at(1).runner?.serving).toBe(false);
  });
});

describe('a backup whose guest has ended', () => {
  /** The backup stands still; what somebody says of its guest reaches the leader. Who executes a while later? */
  function executorsAfter(mail: 'lost' | 'wanted', incarnation: number): number {
    const scenario = new RoundScenario();
    scenario.until('a round is open', () => scenario.at(0).loop?.reconciling === true);
    scenario.at(1).pausedUntilUs = scenario.queue.nowUs + 90_000;
    const word = new Uint8Array(8);
    word[0] = incarnation;
    scenario.at(0).loop?.receive(toReplicaId(1), mail, word, scenario.queue.nowUs);
    // Sooner than a partner that stands still would be given up.
    scenario.runOn(60_000);
    return scenario.at(0).replica?.executingSetCommitted.length ?? 0;
  }

  it('is not waited for, whether its agent says so or its next guest does', () => {
    expect(executorsAfter('lost', 1)).toBe(1);
    expect(executorsAfter('wanted', 2)).toBe(1);
  });

  it('is none of which an earlier or the same guest is spoken of', () => {
    expect(executorsAfter('lost', 0)).toBe(2);
    expect(executorsAfter('wanted', 1)).toBe(2);
  });
});

describe('a frozen leader', () => {
  it('that wakes in an open round releases nothing, and comes in again as a backup', () => {
    const scenario = new RoundScenario({ toldOfDeath: false });
    scenario.until('a round is open', () => scenario.at(0).loop?.reconciling === true);
    scenario.at(0).pausedUntilUs = scenario.queue.nowUs + 600_000;
    scenario.until('the backup serves', () => scenario.at(1).runner?.serving === true);
    scenario.runOn(700_000);
    scenario.at(0).step();
    scenario.until('both execute again', () => {
      const { replica } = scenario.at(1);
      return replica?.mayServe === true && replica.executingSetCommitted.length === 2;
    });
    expect(scenario.at(0).runner?.serving).toBe(false);
    expect(scenario.at(0).exchange?.set.valid).toBe(true);
  });
});

describe('a set that outlives its agent', () => {
  it('lets the new agent come back with few pages compared, not all', () => {
    const scenario = new RoundScenario();
    let whole: boolean | undefined;
    scenario.at(0).exchanged = (_leads, outcome) => {
      if (outcome.type === 'equal') whole = outcome.report.wholeMemory;
    };
    scenario.until('a round is done', () => scenario.at(0).loop?.reconciling === false);
    scenario.at(1).crash(false);
    scenario.boot(scenario.at(1));
    whole = undefined;
    scenario.until(
      'it is equal again',
      () => scenario.at(1).exchange?.set.valid === true && whole !== undefined,
    );
    expect(whole).toBe(false);
  });
});
