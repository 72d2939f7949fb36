import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  firstBase,
  harm,
  logOptions,
  makeRecord,
  noRecord,
  RestoredLog,
  ScriptedWriter,
  type MadeRecord,
} from '../../../test/framework/log-lab.ts';
import { recordMemory } from '../../core/falcon/record.ts';
import { toLogIndex, toReplicaId } from '../../core/ids.ts';
import { DurableLog, type DurableLogOptions } from './durable-log.ts';
import { LogCorruptError, LogRefusedError } from './log-errors.ts';
import { segmentFile } from './segment-files.ts';
import { NativeSegmentWriter } from './segment-writer.ts';

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gaia-log-'));
  folder = join(root, 'log');
});
afterEach(() => rmSync(root, { recursive: true }));

const recordBytes = 56 + 104;

/** Begins a log, has `count` records made durable, and closes it. */
function writeLog(count: number, more: Partial<DurableLogOptions> = {}): MadeRecord[] {
  const writer = new NativeSegmentWriter(1 << 16);
  const log = new DurableLog(logOptions(folder, more), writer, new RestoredLog());
  const records: MadeRecord[] = [];
  for (let number = 0; number < count; number++) {
    const record = makeRecord(records.at(-1) ?? noRecord, 1, 104, number % 251);
    records.push(record);
    while (!log.append(recordMemory(record.bytes), 0, record.bytes.length, 0)) untilMore(log, writer);
    while (log.durableIndex < record.index) untilMore(log, writer);
  }
  log.close();
  return records;
}

function untilMore(log: DurableLog, writer: NativeSegmentWriter): void {
  writer.wait();
  log.poll(0);
}

/** What is found when the log is taken up. */
function takeUp(more: Partial<DurableLogOptions> = {}): RestoredLog & { readonly cutBytes: number } {
  const restored = new RestoredLog();
  const log = new DurableLog(logOptions(folder, more), new NativeSegmentWriter(1 << 16), restored);
  const { cutBytes } = log;
  log.close();
  return Object.assign(restored, { cutBytes });
}

function refusal(more: Partial<DurableLogOptions> = {}): LogRefusedError {
  const before = readdirSync(folder);
  try {
    takeUp(more);
  } catch (error) {
    if (!(error instanceof LogRefusedError)) throw error;
    // What is refused is left as it was found.
    expect(readdirSync(folder)).toEqual(before);
    return error;
  }
  throw new Error('The log should have been refused');
}

/** Where the record lies, found by its checksum. */
function offsetOf(file: string, record: MadeRecord): number {
  const offset = readFileSync(file).indexOf(record.bytes);
  expect(offset).toBeGreaterThan(0);
  return offset;
}

describe('a durable log', () => {
  it('is found again as it was left, over many segments', () => {
    const records = writeLog(500);
    expect(readdirSync(folder).length).toBeGreaterThan(10);
    const restored = takeUp();
    expect(restored.base).toMatchObject(firstBase);
    expect(restored.records).toEqual(records);
    expect(restored.cutBytes).toBe(0);
  });

  it('holds the bytes of a record unchanged', () => {
    const [record = noRecord] = writeLog(1);
    expect(offsetOf(segmentFile(folder, 1), record) % 8).toBe(0);
  });

  it('is readable by its owner only', () => {
    mkdirSync(folder, { mode: 0o755 });
    writeLog(1);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(segmentFile(folder, 1)).mode & 0o777).toBe(0o600);
  });

  it('takes no more room than it is allowed, and still reads back all that it kept', () => {
    const writer = new NativeSegmentWriter(1 << 16);
    const options = logOptions(folder, { diskBytesMax: 5 * 16 * 1024 });
    const log = new DurableLog(options, writer, new RestoredLog());
    let record = noRecord;
    for (let number = 0; number < 2000; number++) {
      record = makeRecord(record, 1, 104, number % 251);
      while (!log.append(recordMemory(record.bytes), 0, record.bytes.length, 0)) untilMore(log, writer);
      while (log.durableIndex < record.index) untilMore(log, writer);
      log.superfluousIndex = record.index;
      expect(log.diskBytes).toBeLessThanOrEqual(5 * 16 * 1024);
    }
    expect(log.firstIndex).toBeGreaterThan(1500);
    const target = recordMemory(new Uint8Array(recordBytes));
    expect(log.read(toLogIndex(log.firstIndex - 1), target, 0)).toBe(0);
    for (let index = log.firstIndex; index <= 2000; index++) {
      expect(log.read(toLogIndex(index), target, 0)).toBe(recordBytes);
      expect(target.view.getUint32(28, true)).toBe(index);
    }
    log.close();
    expect(takeUp().records.at(-1)?.checksum).toBe(record.checksum);
  });

  it('keeps what no restart can do without, whatever room that takes', () => {
    writeLog(500, { diskBytesMax: 5 * 16 * 1024 });
    expect(takeUp().records.length).toBe(500);
  });

  it('gives up what a checkpoint has made superfluous', () => {
    writeLog(500);
    const writer = new NativeSegmentWriter(1 << 16);
    const log = new DurableLog(logOptions(folder), writer, new RestoredLog());
    log.dropThrough(toLogIndex(400));
    expect(log.firstIndex).toBeGreaterThan(300);
    expect(log.firstIndex).toBeLessThanOrEqual(401);
    log.close();
    const { base, records } = takeUp();
    expect(base?.index).toBe((records[0]?.index ?? 0) - 1);
    expect(records.at(-1)?.index).toBe(500);
  });

  it('never drops what a later segment takes a piece back from', () => {
    const writer = new ScriptedWriter();
    const log = new DurableLog(logOptions(folder, { diskBytesMax: 1 }), writer, new RestoredLog());
    const records: MadeRecord[] = [];
    const append = (term: number) => {
      const record = makeRecord(records.at(-1) ?? noRecord, term, 104, term);
      if (!log.append(recordMemory(record.bytes), 0, record.bytes.length, term)) throw new Error('No room');
      records.push(record);
      writer.sync();
      log.poll(0);
    };
    // Into the second segment, back into the first, and on into the fourth.
    while (readdirSync(folder).length < 4) append(1);
    records.splice(-10);
    while (readdirSync(folder).length < 6) append(2);
    log.dropThrough(log.lastIndex);
    log.close();
    const restored = takeUp();
    expect(restored.base?.index).toBe(0);
    expect(restored.records).toEqual(records);
  });

  it('drops nothing before what follows it is on disk', () => {
    const writer = new ScriptedWriter();
    const log = new DurableLog(logOptions(folder, { diskBytesMax: 1 }), writer, new RestoredLog());
    let record = noRecord;
    const append = () => {
      record = makeRecord(record, 1, 104, 1);
      log.append(recordMemory(record.bytes), 0, record.bytes.length, 0);
    };
    while (readdirSync(folder).length < 4) append();
    writer.sync();
    log.poll(0);
    const { durableIndex } = log;
    // A leader's word may come before its own disk's: it says that all of this is committed.
    log.superfluousIndex = durableIndex + 200;
    for (let number = 0; number < 200; number++) {
      append();
      log.poll(0);
    }
    writer.crash(() => false);
    log.close();
    expect(takeUp().records.at(-1)?.index).toBe(durableIndex);
  });

  it('waits while the disk is full, says so, and goes on when there is room again', () => {
    const writer = new ScriptedWriter();
    const log = new DurableLog(logOptions(folder), writer, new RestoredLog());
    log.poll(0);
    writer.diskFull = true;
    let record = noRecord;
    let taken = true;
    for (let number = 0; taken && number < 500; number++) {
      const next = makeRecord(record, 1, 104, 1);
      taken = log.append(recordMemory(next.bytes), 0, next.bytes.length, 0);
      if (taken) record = next;
      writer.sync();
      log.poll(5_000_000);
    }
    expect(taken).toBe(false);
    expect(log.stuck).toBe(true);
    expect(log.fullSinceUs).toBe(5_000_000);
    expect(log.durableIndex).toBe(record.index);
    writer.diskFull = false;
    log.poll(5_500_000);
    expect(log.stuck).toBe(true);
    log.poll(6_000_000);
    log.poll(6_000_000);
    const next = makeRecord(record, 1, 104, 1);
    expect(log.append(recordMemory(next.bytes), 0, next.bytes.length, 0)).toBe(true);
    expect(log.stuck).toBe(false);
    log.close();
  });
});

describe('what is wrong with a log is said by name', () => {
  it('harm in the middle, to the byte and the record, whichever bit it is', () => {
    const records = writeLog(40);
    const file = segmentFile(folder, 1);
    const sound = readFileSync(file);
    for (const index of [1, 17, 39]) {
      const record = records[index - 1] ?? noRecord;
      const offset = offsetOf(file, record);
      for (let byte = 0; byte < record.bytes.length; byte += 3) {
        harm(file, offset + byte, Uint8Array.of((record.bytes[byte] ?? 0) ^ 0x10));
        const error = refusal();
        expect(error).toBeInstanceOf(LogCorruptError);
        expect(error).toMatchObject({ code: 'GAIA_LOG_CORRUPT', file, offsetBytes: offset, index });
        expect(error.message).toContain(
          `${file} is harmed at byte ${offset}, where record ${index} should be`,
        );
        harm(file, offset, sound.subarray(offset, offset + recordBytes));
      }
    }
    expect(takeUp().records.length).toBe(40);
  });

  it('a last record that was on disk and is no more, as long as the claim behind it stands', () => {
    const records = writeLog(35);
    const file = segmentFile(folder, 1);
    const last = records.at(-1) ?? noRecord;
    harm(file, offsetOf(file, last), new Uint8Array(recordBytes));
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_CORRUPT', index: 35 });
  });

  it('zeros where an earlier segment had records, as the next one tells', () => {
    const records = writeLog(120);
    const file = segmentFile(folder, 1);
    const offset = offsetOf(file, records[10] ?? noRecord);
    harm(file, offset, new Uint8Array(16 * 1024 - offset));
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_CORRUPT', file, index: 11 });
  });

  it.each([
    ['the header', 20],
    ['the base', 4096 + 12],
  ])('harm to %s of a segment', (_, offset) => {
    writeLog(120);
    const file = segmentFile(folder, 2);
    harm(file, offset, Uint8Array.of(0xa5));
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_CORRUPT', file });
  });

  it('a segment that is missing', () => {
    writeLog(300);
    rmSync(segmentFile(folder, 2));
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_GAP', file: segmentFile(folder, 2) });
  });

  it('a segment that was cut short', () => {
    writeLog(120);
    truncateSync(segmentFile(folder, 1), 12 * 1024);
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_CORRUPT', file: segmentFile(folder, 1) });
  });

  it('a segment under the name of another', () => {
    writeLog(120);
    const spare = join(root, 'spare');
    renameSync(segmentFile(folder, 1), spare);
    renameSync(segmentFile(folder, 2), segmentFile(folder, 1));
    renameSync(spare, segmentFile(folder, 2));
    expect(refusal()).toMatchObject({ code: 'GAIA_LOG_FOREIGN' });
  });

  it('the log of another cluster, of another replica, of another version', () => {
    writeLog(3);
    expect(refusal({ identity: { clusterId: 78n, replica: toReplicaId(1) } }).message).toContain(
      'belongs to cluster 77, not to 78',
    );
    expect(refusal({ identity: { clusterId: 77n, replica: toReplicaId(2) } }).message).toContain(
      'is the log of replica 1, not of 2',
    );
    const header = readFileSync(segmentFile(folder, 1)).subarray(0, 64);
    header.writeUInt32LE(9, 8);
    const { crc32c } = logOptions(folder);
    header.writeInt32LE(crc32c(header, 16, 48, crc32c(header, 0, 12, 0)), 12);
    harm(segmentFile(folder, 1), 0, header);
    expect(refusal().message).toContain('is of log version 9, and this program reads version 1');
  });

  it('a log that is being written by someone else', () => {
    const log = new DurableLog(logOptions(folder), new NativeSegmentWriter(1 << 16), new RestoredLog());
    try {
      takeUp();
      expect.unreachable('two writers of one log');
    } catch (error) {
      expect(error).toMatchObject({ code: 'GAIA_LOG_IN_USE' });
      expect((error as Error).message).toContain(`is being written by process ${process.pid}`);
    }
    log.close();
  });

  it('a disk without room for the first segment', () => {
    const writer = new ScriptedWriter();
    writer.diskFull = true;
    expect(() => new DurableLog(logOptions(folder), writer, new RestoredLog())).toThrow(
      /has no room for a log segment of 0.015625 MiB: free some space/,
    );
  });
});

describe('a torn end', () => {
  /** As a power cut leaves it: the last claim is lost with what it spoke of. */
  function tear(change: (bytes: Buffer, from: number) => void): void {
    const file = segmentFile(folder, 1);
    const bytes = readFileSync(file);
    let end = bytes.length;
    while (bytes[end - 1] === 0) end--;
    // The last claim, and the last record before it.
    bytes.fill(0, end - 48);
    const from = bytes.lastIndexOf('FREC');
    change(bytes, from);
    harm(file, 0, bytes);
  }

  it.each([
    ['half a record', (bytes: Buffer, from: number) => bytes.fill(0, from + 80, from + recordBytes)],
    ['a record without its beginning', (bytes: Buffer, from: number) => bytes.fill(0, from, from + 64)],
    ['noise', (bytes: Buffer, from: number) => bytes.fill(0xa7, from, from + 4000)],
  ])('is cut off: %s', (_, change) => {
    const records = writeLog(20);
    tear(change);
    const restored = takeUp();
    expect(restored.records).toEqual(records.slice(0, 19));
    expect(restored.cutBytes).toBeGreaterThan(0);
    // Nothing of it is left.
    expect(takeUp().cutBytes).toBe(0);
  });

  it('may be of a segment that was never begun', () => {
    writeLog(20);
    const file = segmentFile(folder, 2);
    expect(existsSync(file)).toBe(true);
    truncateSync(file, 0);
    expect(takeUp().records.length).toBe(20);
    expect(existsSync(file)).toBe(true);
  });

  it('cannot be pretended by the payload of a record, nor can a claim', () => {
    writeLog(1);
    const bytes = readFileSync(segmentFile(folder, 1));
    const mark = bytes.subarray(bytes.indexOf('FMRK'), bytes.indexOf('FMRK') + 48);
    rmSync(folder, { recursive: true });
    // A payload that holds a whole mark of another log, at its right place and claiming all: this one's nonce is secret.
    writeLog(5);
    const torn = readFileSync(segmentFile(folder, 1));
    let end = torn.length;
    while (torn[end - 1] === 0) end--;
    torn.fill(0, end - 48);
    const from = torn.lastIndexOf('FREC');
    torn.fill(1, from, from + 16);
    mark.writeUInt32LE(from + 64, 20);
    mark.writeUInt32LE(from + recordBytes, 28);
    const { crc32c } = logOptions(folder);
    mark.writeInt32LE(crc32c(mark, 8, 40, 0), 4);
    mark.copy(torn, from + 64);
    harm(segmentFile(folder, 1), 0, torn);
    expect(takeUp().records.length).toBe(4);
  });
});
