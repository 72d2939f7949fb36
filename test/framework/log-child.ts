/**
 * A process that writes a durable log until it is killed: takes up the one in the folder given as its first argument,
 * says "found N", then appends records of some 100 bytes, and now and then puts others in the place of the newest. Says
 * "durable N" after each group commit. Fails loudly when the disk does.
 */
import { writeSync } from 'node:fs';
import { recordMemory } from '../../vmm/core/falcon/record.ts';
import { DurableLog } from '../../vmm/io/log/durable-log.ts';
import { NativeSegmentWriter } from '../../vmm/io/log/segment-writer.ts';
import { logOptions, makeRecord, noRecord, RestoredLog, type MadeRecord } from './log-lab.ts';

const [folder = '', limit = 'Infinity'] = process.argv.slice(2);
const writer = new NativeSegmentWriter(1 << 16);
const restored = new RestoredLog();
const log = new DurableLog(logOptions(folder, { segmentBytes: 64 * 1024 }), writer, restored);
say(`found ${log.lastIndex}`);

let term = Date.now() % 1_000_000;
const records: MadeRecord[] = restored.records.map(({ index, checksum }) => ({
  ...noRecord,
  index,
  checksum,
  term: 0,
}));
let last: MadeRecord = lastFound();
let epoch = 0;
try {
  while (log.lastIndex < Number(limit)) {
    const replaces = last.index % 50 === 49 && log.durableIndex < last.index && records.length > 2;
    if (replaces) {
      // What was called durable is never replaced here, so that whoever listens can count on it.
      term++;
      epoch++;
      records.pop();
      last = records.at(-1) ?? noRecord;
    }
    append();
    // A few at once, so that groups have different sizes.
    if (last.index - log.durableIndex > last.index % 16) writer.wait();
    if (log.poll(performance.now() * 1000) && log.durableEpoch === epoch) say(`durable ${log.durableIndex}`);
  }
  log.close();
} catch (error) {
  say(`failed ${(error as Error).message}`);
  process.exitCode = 3;
}

function append(): void {
  const record = makeRecord(last, term, 100, last.index % 251);
  while (!log.append(recordMemory(record.bytes), 0, record.bytes.length, epoch)) {
    if (log.stuck) say(`stuck ${log.durableIndex}`);
    writer.wait();
    log.poll(performance.now() * 1000);
  }
  records.push(record);
  last = record;
}

/** The terms of records found are not kept, so the chain goes on from the bytes on disk. */
function lastFound(): MadeRecord {
  const found = recordMemory(new Uint8Array(4096));
  if (log.lastIndex === 0) return noRecord;
  const length = log.read(log.lastIndex, found, 0);
  const { view } = found;
  return {
    index: log.lastIndex,
    term: view.getInt32(24, true),
    checksum: view.getInt32(20, true),
    bytes: found.bytes.slice(0, length),
  };
}

function say(text: string): void {
  writeSync(1, `${text}\n`);
}
