import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  firstBase,
  logOptions,
  makeRecord,
  noRecord,
  RestoredLog,
  ScriptedWriter,
  type MadeRecord,
} from '../../../test/framework/log-lab.ts';
import { toLogIndex } from '../../core/ids.ts';
import { recordMemory } from '../../core/falcon/record.ts';
import { DurableLog } from './durable-log.ts';

/** What happens to a log, in a row. */
type Step =
  | { readonly kind: 'append'; readonly payloadBytes: number }
  | { readonly kind: 'replace'; readonly depth: number; readonly payloadBytes: number }
  | { readonly kind: 'sync' }
  | { readonly kind: 'commit' }
  | { readonly kind: 'begin anew' }
  | { readonly kind: 'crash'; readonly keptOf256: number; readonly seed: number };

const payloadBytes = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 5000 }));
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('append' as const), payloadBytes }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('replace' as const),
      depth: fc.integer({ min: 1, max: 6 }),
      payloadBytes,
    }),
  },
  { weight: 4, arbitrary: fc.constant({ kind: 'sync' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'commit' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'begin anew' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('crash' as const),
      keptOf256: fc.constantFrom(0, 64, 128, 230, 256),
      seed: fc.nat(),
    }),
  },
);

/** A log and what must be true of it. */
class Life {
  readonly folder: string;
  writer = new ScriptedWriter();
  log: DurableLog;
  /** The live log as it is now, and as it was after each write that was not durable at last sight. */
  live: MadeRecord[] = [];
  base = 0;
  committed = 0;
  term = 1;
  epoch = 0;
  history: { readonly writes: number; readonly live: readonly MadeRecord[] }[] = [];

  constructor(folder: string) {
    this.folder = folder;
    this.log = this.#open(new RestoredLog());
    this.#note();
  }

  #open(restored: RestoredLog): DurableLog {
    return new DurableLog(
      // Records of up to 5 KB, so that segments end after a few; what is committed goes soon.
      logOptions(this.folder, { segmentBytes: 20 * 1024, diskBytesMax: 80 * 1024 }),
      this.writer,
      restored,
    );
  }

  get last(): MadeRecord {
    return this.live.at(-1) ?? { ...noRecord, index: this.base };
  }

  #note(): void {
    this.history.push({ writes: this.writer.writes, live: [...this.live] });
  }

  append(payload: number): void {
    const record = makeRecord(this.last, this.term, payload, this.live.length + 1);
    const memory = recordMemory(record.bytes);
    while (!this.log.append(memory, 0, record.bytes.length, this.epoch)) this.sync();
    this.live.push(record);
    this.#note();
  }

  replace(depth: number, payload: number): void {
    const kept = Math.max(this.committed, this.last.index - depth);
    if (kept === this.last.index) return;
    this.live = this.live.filter(({ index }) => index <= kept);
    // A crash may leave the truncation without what takes its place.
    this.history.push({ writes: this.writer.writes + 1, live: [...this.live] });
    this.term++;
    this.epoch++;
    this.append(payload);
  }

  sync(): void {
    this.writer.sync();
    this.log.poll(0);
    const durable = this.history.filter(({ writes }) => writes <= this.writer.durableWrites);
    this.history = [...durable.slice(-1), ...this.history.slice(durable.length)];
    if (this.writer.pendingWrites <= 1) expect(this.log.durableIndex).toBe(this.last.index);
  }

  /** What is durable here may be committed, and then is never replaced. */
  commit(): void {
    if (this.log.durableEpoch === this.epoch)
      this.committed = Math.max(this.committed, this.log.durableIndex);
    this.log.superfluousIndex = this.committed;
  }

  beginAnew(): void {
    const { index, term, checksum } = makeRecord(this.last, ++this.term, 8, 255);
    this.epoch++;
    this.log.beginAnew({ ...firstBase, index: toLogIndex(index), term: term as never, checksum }, this.epoch);
    this.live = [{ index, term, checksum, bytes: new Uint8Array(0) }];
    this.committed = index;
    this.history = [];
    this.#note();
  }

  crash(keptOf256: number, seed: number): void {
    let state = seed | 1;
    this.writer.crash(() => {
      state = Math.imul(state, 1_103_515_245) + 12_345;
      return ((state >>> 16) & 255) < keptOf256;
    });
    this.log.close();
    this.writer = new ScriptedWriter();
    const restored = new RestoredLog();
    this.log = this.#open(restored);
    this.#takeUp(restored);
  }

  /** The log found is one of those that were there since the last that was durable, without what was dropped. */
  #takeUp(restored: RestoredLog): void {
    const from = restored.base?.index ?? -1;
    const found = restored.records.map(({ checksum }) => checksum);
    const legal = this.history.find(({ live }) => {
      const kept = live.filter(({ index }) => index > from).map(({ checksum }) => checksum);
      return kept.length === found.length && kept.every((checksum, at) => checksum === found[at]);
    });
    expect(legal, `${found.length} records behind ${from} are none of the legal ends`).toBeDefined();
    expect(from).toBeLessThanOrEqual(Math.max(this.committed, this.base));
    this.live = [...(legal?.live ?? [])];
    expect(this.log.lastIndex).toBe(this.last.index);
    expect(this.log.durableIndex).toBe(this.last.index);
    this.history = [];
    this.epoch = 0;
    this.term++;
    this.#note();
  }

  /** Every record that is durable and was not dropped can be read back as it was. */
  readBack(): void {
    const target = recordMemory(new Uint8Array(8192));
    for (const { index, bytes } of this.live) {
      if (index < this.log.firstIndex || index > this.log.durableIndex) continue;
      const length = this.log.read(toLogIndex(index), target, 8);
      expect(target.bytes.subarray(8, 8 + length)).toEqual(bytes);
    }
  }
}

function live(folder: string, steps: readonly Step[]): void {
  const life = new Life(folder);
  try {
    for (const given of steps) {
      switch (given.kind) {
        case 'append':
          life.append(given.payloadBytes);
          break;
        case 'replace':
          life.replace(given.depth, given.payloadBytes);
          break;
        case 'sync':
          life.sync();
          break;
        case 'commit':
          life.commit();
          break;
        case 'begin anew':
          life.beginAnew();
          break;
        case 'crash':
          life.crash(given.keptOf256, given.seed);
      }
    }
    life.sync();
    if (life.log.durableEpoch === life.epoch || life.writer.writes === 0) life.readBack();
    life.crash(0, 1);
  } finally {
    life.log.close();
  }
}

it('a crash at any point leaves a log that was there since the last sync, and nothing of what was cut', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const folder = mkdtempSync(join(tmpdir(), 'gaia-log-crash-'));
      try {
        live(folder, steps);
      } finally {
        rmSync(folder, { recursive: true });
      }
    }),
    { numRuns: Number(process.env['GAIA_LOG_RUNS'] ?? 60) },
  );
}, 120_000);
