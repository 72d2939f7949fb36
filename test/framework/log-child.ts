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

let term = (restored.records.at(-1)?.term ?? 0) + 1;
const records: MadeRecord[] = [...restored.records];
let epoch = 0;
let replacedIndex = 0;
try {
  while (log.lastIndex < Number(limit)) {
    replaceNow();
    append();
    // A few at once, so that groups have different sizes.
    if (lastIndex() - log.durableIndex > lastIndex() % 16) writer.wait();
    if (log.poll(performance.now() * 1000) && log.durableEpoch === epoch) say(`durable ${log.durableIndex}`);
  }
  while (log.durableIndex < lastIndex()) {
    writer.wait();
    log.poll(performance.now() * 1000);
  }
  say(`durable ${log.durableIndex}`);
  log.close();
} catch (error) {
  say(`failed ${(error as Error).message}`);
  process.exitCode = 3;
}

function lastIndex(): number {
  return records.at(-1)?.index ?? 0;
}

/** Every fiftieth record gives way to another, once; never what was called durable: whoever listens counts on it. */
function replaceNow(): void {
  const index = lastIndex();
  if (index % 50 !== 49 || index === replacedIndex || index <= log.durableIndex) return;
  replacedIndex = index;
  term++;
  epoch++;
  records.pop();
}

function append(): void {
  const record = makeRecord(records.at(-1) ?? noRecord, term, 100, lastIndex() % 251);
  while (!log.append(recordMemory(record.bytes), 0, record.bytes.length, epoch)) {
    if (log.stuck) say(`stuck ${log.durableIndex}`);
    writer.wait();
    log.poll(performance.now() * 1000);
  }
  records.push(record);
}

function say(text: string): void {
  writeSync(1, `${text}\n`);
}
