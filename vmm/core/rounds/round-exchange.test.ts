import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Prng } from '../../../test/sim/prng.ts';
import { PAGE_BYTES, RoundGuest, type MomentRegistry } from '../../../test/sim/round-guest.ts';
import { countBits } from '../../../merkle/bitmap.ts';
import { crc32cByTables } from '../falcon/crc32c.ts';
import { toReplicaId } from '../ids.ts';
import type { ExchangeSettings } from './exchange-memory.ts';
import { MessageType } from './exchange-message.ts';
import { RoundExchange } from './round-exchange.ts';
import type { ExchangeKind, ExchangeOutcome } from './round-report.ts';

const A = toReplicaId(0);
const B = toReplicaId(1);
const PAGES = 80;
const NO_BYTES = { zero: 0, repeated: 0, sparse: 0, delta: 0, whole: 0, state: 0 };

class Died extends Error {}

/** Two replicas and a wire that may do its worst. */
class Pair {
  readonly registry: MomentRegistry = [];
  readonly leaderGuest: RoundGuest;
  readonly backupGuest: RoundGuest;
  readonly prng: Prng;
  leader: RoundExchange;
  backup: RoundExchange;
  leaderOutcome: ExchangeOutcome | undefined;
  backupOutcome: ExchangeOutcome | undefined;
  /** Messages on their way: the leader's, then the backup's. */
  readonly toBackup: Uint8Array[] = [];
  readonly toLeader: Uint8Array[] = [];
  /** True: this message does not arrive. */
  intercept: (message: Uint8Array) => boolean = () => false;
  nowUs = 0;
  term = 1;
  session = 1;
  settings: Partial<ExchangeSettings> = {};

  constructor(seed: number, settings: Partial<ExchangeSettings> = {}, pages = PAGES) {
    this.leaderGuest = new RoundGuest(pages, this.registry);
    this.backupGuest = new RoundGuest(pages, this.registry);
    this.prng = new Prng(seed);
    this.settings = settings;
    this.leader = this.#exchange(this.leaderGuest, 77);
    this.backup = this.#exchange(this.backupGuest, this.session);
    this.enterTerm(1);
  }

  #exchange(guest: RoundGuest, session: number): RoundExchange {
    return new RoundExchange(guest, guest.claimSet(), {
      crc32c: crc32cByTables,
      partBytes: 64,
      stagingBytesMax: 1 << 20,
      resendUs: 100,
      link: { roundTripUs: 10, bytesPerUs: 1000 },
      session,
      ...this.settings,
    });
  }

  enterTerm(term: number): void {
    this.term = term;
    this.leader.enterTerm(term, A, true);
    this.backup.enterTerm(term, A, false);
  }

  restartBackup(): void {
    this.backupGuest.beforeStore = () => undefined;
    this.backup = this.#exchange(this.backupGuest, ++this.session);
    this.backup.enterTerm(this.term, A, false);
  }

  run(index: number, exact = false): void {
    const input = Uint8Array.from({ length: 8 }, () => this.prng.between(0, 255));
    for (const guest of [this.leaderGuest, this.backupGuest]) {
      guest.run(index, input, () => this.prng.fraction(), exact);
    }
  }

  begin(kind: ExchangeKind, index: number): void {
    this.leaderOutcome = undefined;
    this.backupOutcome = undefined;
    this.leader.begin({ kind, term: this.term, index }, B, this.nowUs);
    this.backup.stand({ index, adopts: kind === 'adopt' || kind === 'checkpoint' }, this.nowUs);
  }

  /** Takes what both want to say, and says what has arrived; `lossy`: or loses, doubles, delays it. */
  turn(lossy: boolean): void {
    this.nowUs += 30;
    this.leader.leader.tick(this.nowUs);
    this.#collect(this.leader, this.toBackup);
    this.#collect(this.backup, this.toLeader);
    this.#deliver(this.toBackup, this.backup, A, lossy);
    this.#deliver(this.toLeader, this.leader, B, lossy);
    this.leaderOutcome ??= this.leader.takeOutcome();
    this.backupOutcome ??= this.backup.takeOutcome();
    this.leader.settleUp();
    this.backup.settleUp();
  }

  #collect(from: RoundExchange, wire: Uint8Array[]): void {
    for (let message = from.peek(); message !== undefined; message = from.peek()) {
      wire.push(message.slice());
      from.sent();
    }
  }

  #deliver(wire: Uint8Array[], to: RoundExchange, from: typeof A, lossy: boolean): void {
    const waiting = wire.splice(0);
    for (const message of waiting) {
      const fate = lossy ? this.prng.fraction() : 1;
      if (fate < 0.1 || this.intercept(message)) continue;
      if (fate < 0.35) {
        wire.push(message);
        if (fate < 0.2) wire.push(message);
        continue;
      }
      to.receive(from, message, false, this.nowUs);
    }
  }

  settle(lossy = false, turns = 3000): void {
    for (let turn = 0; turn < turns && this.leaderOutcome === undefined; turn++) this.turn(lossy);
  }

  /** One whole round: executed on both sides, then exchanged. */
  round(index: number, kind: ExchangeKind = 'reconcile', lossy = false): ExchangeOutcome | undefined {
    this.run(index);
    this.begin(kind, index);
    this.settle(lossy);
    return this.leaderOutcome;
  }

  get differing(): number[] {
    return this.leaderGuest.differingPages(this.backupGuest);
  }
}

describe('the exchange of a round', () => {
  it('makes a fresh backup equal, then ships only what differs', () => {
    const pair = new Pair(1);
    pair.round(1, 'adopt');
    expect(pair.leaderOutcome).toMatchObject({
      type: 'equal',
      report: { wholeMemory: true, unionPages: PAGES },
    });
    expect(pair.backup.set.valid).toBe(true);
    for (let index = 2; index < 40; index++) {
      pair.run(index);
      const differing = pair.differing.length;
      pair.begin('reconcile', index);
      pair.settle();
      expect(pair.leaderOutcome).toMatchObject({
        type: 'equal',
        report: { wholeMemory: false, divergentPages: differing, attempts: 1 },
      });
      expect(pair.backupOutcome?.type).toBe('equal');
      expect(pair.differing).toEqual([]);
      expect(pair.backupGuest.devices).toEqual(pair.leaderGuest.devices);
      expect(pair.backupGuest.held).toEqual([]);
    }
  });

  it('ends equal whatever is lost, doubled, delayed and overtaken, and never while a page differs', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.constantFrom<ExchangeKind>('reconcile', 'adopt', 'checkpoint'),
        (seed, kind) => {
          const pair = new Pair(seed);
          pair.round(1, 'adopt');
          for (let index = 2; index < 8; index++) {
            expect(pair.round(index, kind, true)?.type).toBe('equal');
            expect(pair.differing).toEqual([]);
            expect(countBits(pair.leader.set.since)).toBe(0);
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  it('a backup that dies at any of its stores is not VALID unless it is equal, and is made equal again', () => {
    for (let store = 1; store < 60; store++) {
      const pair = new Pair(store);
      pair.round(1, 'adopt');
      pair.run(2);
      let left = store;
      pair.backupGuest.beforeStore = () => {
        if (--left === 0) throw new Died();
      };
      pair.begin('reconcile', 2);
      try {
        pair.settle();
      } catch (error) {
        if (!(error instanceof Died)) throw error;
        if (pair.backup.set.valid) expect(pair.backupGuest.past?.index).toBe(2);
        pair.restartBackup();
        pair.leader.leader.abandon();
        // Every page that differs is in one of the two sets, or they know that they do not know.
        const known = pair.leader.set.intact && pair.backup.set.intact;
        const words = new Uint32Array(pair.leaderGuest.bitmapWords);
        pair.leader.set.writeInto(words);
        pair.backup.set.writeInto(words);
        for (const guest of [pair.leaderGuest, pair.backupGuest]) {
          for (let word = 0; word < words.length; word++)
            words[word] = (words[word] ?? 0) | (guest.dirty[word] ?? 0);
        }
        for (const page of pair.differing) {
          if (known) expect(((words[page >> 5] ?? 0) >>> (page & 31)) & 1).toBe(1);
        }
        pair.begin('adopt', 2);
        pair.settle();
      }
      expect(pair.leaderOutcome?.type).toBe('equal');
      expect(pair.differing).toEqual([]);
      expect(pair.backup.set.valid).toBe(true);
    }
  });

  it('a backup that restarts in the middle is asked anew', () => {
    const pair = new Pair(5);
    pair.round(1, 'adopt');
    pair.run(2);
    pair.begin('adopt', 2);
    pair.turn(false);
    pair.turn(false);
    pair.restartBackup();
    pair.backup.stand({ index: 0, adopts: true }, pair.nowUs);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({ type: 'equal', report: { attempts: 2 } });
    expect(pair.differing).toEqual([]);
  });

  it('staging that arrives after the leader went on is dropped by its number', () => {
    const pair = new Pair(9);
    pair.round(1, 'adopt');
    pair.run(2);
    pair.begin('reconcile', 2);
    const late: Uint8Array[] = [];
    pair.intercept = (message) => {
      const staging = message[0] === MessageType.stage || message[0] === MessageType.end;
      if (staging) late.push(message);
      return staging;
    };
    while (late.length < 4) pair.turn(false);
    pair.intercept = () => false;
    pair.leader.leader.abandon();
    pair.begin('reconcile', 2);
    pair.turn(false);
    const before = pair.backupGuest.memory.slice();
    for (const message of late) pair.backup.receive(A, message, false, pair.nowUs);
    expect(pair.backupGuest.memory).toEqual(before);
    pair.settle();
    expect(pair.leaderOutcome?.type).toBe('equal');
    expect(pair.differing).toEqual([]);
  });

  it('a backup that won a term takes nothing more of the old one', () => {
    const pair = new Pair(10);
    pair.round(1, 'adopt');
    pair.run(2);
    pair.begin('reconcile', 2);
    pair.turn(false);
    pair.backup.enterTerm(2, B, true);
    const before = pair.backupGuest.memory.slice();
    pair.settle(false, 300);
    expect(pair.leaderOutcome).toBeUndefined();
    expect(pair.backupGuest.memory).toEqual(before);
    expect(pair.backup.set.valid).toBe(true);
  });

  it.each([
    ['another one leads', toReplicaId(2)],
    ['the same one leads again', A],
  ])('a backup takes nothing more of an older term when %s', (_case, leader) => {
    const pair = new Pair(12);
    pair.round(1, 'adopt');
    pair.run(2);
    pair.begin('adopt', 2);
    pair.turn(false);
    pair.backup.enterTerm(2, leader, false);
    pair.backup.stand({ index: 2, adopts: true }, pair.nowUs);
    const before = pair.backupGuest.memory.slice();
    pair.settle(false, 300);
    expect(pair.leaderOutcome).toBeUndefined();
    expect(pair.backupGuest.memory).toEqual(before);
  });

  it('memory that does not keep what was written is told on both sides, and is no longer VALID', () => {
    const pair = new Pair(11);
    pair.round(1, 'adopt');
    do pair.run(2);
    while (pair.differing.length === 0);
    const at = (pair.differing[0] ?? 0) * PAGE_BYTES;
    pair.backupGuest.invalidate = () => {
      pair.backupGuest.memory[at] = (pair.backupGuest.memory[at] ?? 0) ^ 1;
    };
    pair.begin('reconcile', 2);
    pair.settle();
    expect(pair.leaderOutcome?.type).toBe('mismatch');
    expect(pair.backupOutcome?.type).toBe('mismatch');
    expect(pair.backup.set.valid).toBe(false);
    expect(pair.backup.set.intact).toBe(false);
  });

  it('pages that loading a state writes outside the union are compared before the backup is VALID', () => {
    const pair = new Pair(12);
    pair.round(1, 'adopt');
    pair.backupGuest.loadWrites = [3, 70];
    expect(pair.round(2)?.type).toBe('equal');
    expect(pair.backup.set.valid).toBe(true);
    expect(pair.differing).toEqual([]);
    pair.run(3);
    pair.backupGuest.loadWrites = [3, 70];
    const load = pair.backupGuest.loadState.bind(pair.backupGuest);
    pair.backupGuest.loadState = (state) => {
      load(state);
      for (const page of [3, 70]) pair.backupGuest.memory[page * PAGE_BYTES + 5] = 99;
    };
    pair.begin('reconcile', 3);
    pair.settle();
    expect(pair.leaderOutcome?.type).toBe('mismatch');
    expect(pair.backup.set.valid).toBe(false);
  });

  it('a comparison lets both go on once their pages are hashed, and tells exactly the pages that differ', () => {
    const pair = new Pair(13);
    pair.round(1, 'adopt');
    pair.run(2, true);
    pair.begin('compare', 2);
    while (!pair.leader.leader.hashed) pair.turn(false);
    pair.run(3);
    const later = pair.differing;
    pair.settle();
    expect(pair.leaderOutcome?.type).toBe('equal');
    pair.begin('compare', 3);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({ type: 'different', pages: later });
    // What differed stays unreconciled until it is shipped.
    pair.begin('reconcile', 3);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({ type: 'equal', report: { divergentPages: later.length } });
    expect(pair.differing).toEqual([]);
  });

  it('a checkpoint ships every page that changed to a backup that did not execute', () => {
    const pair = new Pair(14);
    pair.round(1, 'adopt');
    pair.leaderGuest.run(2, Uint8Array.of(1, 2, 3), () => pair.prng.fraction(), false);
    const dirty = countBits(pair.leaderGuest.dirty);
    pair.begin('checkpoint', 2);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({
      type: 'equal',
      report: { divergentPages: dirty, wholeMemory: false },
    });
    expect(pair.differing).toEqual([]);
  });

  it('ships a page that diverges again as a delta, and tells the bytes of each form', () => {
    const pair = new Pair(30);
    pair.round(1, 'adopt');
    let deltas = 0;
    for (let index = 2; index < 60; index++) {
      pair.round(index);
      const report = pair.leaderOutcome?.report;
      const { zero, repeated, sparse, delta, whole, state } = report?.stagedAs ?? NO_BYTES;
      const sum = 56 + zero + repeated + sparse + delta + whole + Math.ceil(state / 4) * 4;
      expect(report?.stagedBytes).toBe(sum);
      expect(report?.wantedPages).toBe(0);
      expect(state).toBeLessThan(244);
      if (delta > 0) deltas++;
    }
    expect(deltas).toBeGreaterThan(10);
  });

  it('answers a base that the backup lacks, or has otherwise, with a request for whole pages', () => {
    for (const harm of ['lacks', 'differs'] as const) {
      const pair = new Pair(31);
      pair.round(1, 'adopt');
      for (let index = 2; index < 40; index++) pair.round(index);
      const { pages } = pair.backup.common;
      if (harm === 'lacks') pair.backup.common.clear();
      // As if the leader had kept a round that the backup never applied.
      else {
        const { hashes } = pair.leader.common.pages;
        for (let word = 0; word < hashes.length; word++) hashes[word] = ~(hashes[word] ?? 0);
      }
      let wanted = 0;
      for (let index = 40; index < 60; index++) {
        expect(pair.round(index)).toMatchObject({ type: 'equal', report: { attempts: 1 } });
        wanted += pair.leaderOutcome?.report.wantedPages ?? 0;
        expect(pair.differing).toEqual([]);
        expect(pair.backupGuest.devices).toEqual(pair.leaderGuest.devices);
      }
      expect(wanted).toBeGreaterThan(0);
      expect(pages.count).toBeGreaterThan(0);
    }
  });

  it('ends equal under loss while each side forgets what is common as it likes', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 0, max: 12 }), (seed, kept) => {
        const pair = new Pair(seed, { commonBytes: kept * PAGE_BYTES });
        pair.round(1, 'adopt');
        for (let index = 2; index < 20; index++) {
          const { common } = pair.prng.fraction() < 0.5 ? pair.leader : pair.backup;
          if (pair.prng.fraction() < 0.2) common.state.clear();
          for (let page = 0; page < PAGES; page++) if (pair.prng.fraction() < 0.1) common.pages.forget(page);
          expect(pair.round(index, 'reconcile', true)?.type).toBe('equal');
          expect(pair.differing).toEqual([]);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('begins anew on both sides with a backup that is another process', () => {
    const pair = new Pair(33);
    pair.round(1, 'adopt');
    for (let index = 2; index < 20; index++) pair.round(index);
    expect(pair.leader.common.pages.count).toBe(pair.backup.common.pages.count);
    pair.restartBackup();
    pair.run(20);
    pair.begin('adopt', 20);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({ type: 'equal', report: { attempts: 1, wantedPages: 0 } });
    expect(pair.leaderOutcome?.report.stagedAs.delta).toBe(0);
    expect(pair.leader.common.pages.count).toBe(pair.backup.common.pages.count);
  });

  it('compares all pages when the last equal rounds differ', () => {
    const pair = new Pair(15);
    pair.round(1, 'adopt');
    pair.run(2);
    pair.begin('reconcile', 2);
    // The backup has applied, and its word is lost, with the leader's hold on it.
    pair.intercept = (message) => message[0] === MessageType.applied;
    while (pair.backup.set.last.index !== 2) pair.turn(false);
    pair.intercept = () => false;
    pair.leader.leader.abandon();
    pair.leaderOutcome = undefined;
    expect(pair.round(3)).toMatchObject({ type: 'equal', report: { wholeMemory: true } });
    expect(pair.differing).toEqual([]);
  });
});

describe('what cannot be', () => {
  it('a bitmap of another machine is refused by name, and the old state stands', () => {
    const pair = new Pair(20);
    const other = new RoundGuest(PAGES * 2, pair.registry);
    pair.leader = new RoundExchange(other, other.claimSet(), {
      crc32c: crc32cByTables,
      partBytes: 64,
      stagingBytesMax: 1 << 20,
      resendUs: 100,
      link: { roundTripUs: 10, bytesPerUs: 1000 },
      session: 1,
    });
    pair.enterTerm(1);
    const before = pair.backupGuest.memory.slice();
    pair.begin('adopt', 1);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({
      type: 'refused',
      text: expect.stringContaining('both replicas must run the same machine') as string,
    });
    expect(pair.backupGuest.memory).toEqual(before);
  });

  it('ships more pages than one section of the staging holds, whatever is lost and delayed', () => {
    const pages = 2500;
    const pair = new Pair(31, { partBytes: 4096, stagingBytesMax: 1 << 22 }, pages);
    for (let at = 0; at < pair.leaderGuest.memory.length; at++)
      pair.leaderGuest.memory[at] = pair.prng.between(0, 255);
    pair.begin('adopt', 1);
    pair.settle(true);
    expect(pair.leaderOutcome).toMatchObject({ type: 'equal', report: { divergentPages: pages } });
    expect(pair.differing).toEqual([]);
    expect(pair.backup.set.valid).toBe(true);
  });

  it('a staging that is too large for the backup is refused by name, and the old state stands', () => {
    const pair = new Pair(21, { stagingBytesMax: 256 });
    pair.run(1);
    const before = pair.backupGuest.memory.slice();
    pair.begin('adopt', 1);
    pair.settle();
    expect(pair.leaderOutcome).toMatchObject({
      type: 'refused',
      text: expect.stringContaining('256 bytes are taken at most') as string,
    });
    expect(pair.backupGuest.memory).toEqual(before);
    expect(pair.backup.set.valid).toBe(false);
  });

  it('bytes that were harmed on their way count as lost', () => {
    const pair = new Pair(22);
    pair.run(1);
    pair.begin('adopt', 1);
    pair.turn(false);
    for (const message of pair.toBackup) message[message.length - 1] = (message.at(-1) ?? 0) ^ 1;
    pair.settle();
    expect(pair.leaderOutcome?.type).toBe('equal');
    expect(pair.differing).toEqual([]);
  });
});
