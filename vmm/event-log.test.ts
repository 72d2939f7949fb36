import { appendFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { EventLog, readEvents } from './event-log.ts';

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-events-'));
  file = join(folder, 'events.ndjson');
});

afterEach(() => rmSync(folder, { recursive: true }));

const event = (name: string) => ({ name, text: `it was ${name}`, data: {} });

it('numbers go on where an earlier agent ended, also behind a line that a crash cut', () => {
  new EventLog(file).add(event('first'));
  appendFileSync(file, '{"number":2,"na');
  appendFileSync(file, '\n');
  const log = new EventLog(file);
  expect(log.add(event('second')).number).toBe(2);
  expect(log.events.map(({ number, name }) => [number, name])).toEqual([
    [1, 'first'],
    [2, 'second'],
  ]);
  expect(readEvents(file).length).toBe(2);
  expect(log.last('first')?.number).toBe(1);
  expect(log.last('none')).toBeUndefined();
});

it('memory and disk stay bounded', () => {
  const log = new EventLog(file);
  for (let count = 0; count < 1200; count++) log.add({ ...event('long'), text: 'x'.repeat(3000) });
  expect(log.events.length).toBe(1000);
  expect(statSync(file).size + statSync(`${file}.1`).size).toBeLessThan(2.1 * (1 << 20));
  expect(new EventLog(file).events.at(-1)?.number).toBe(1200);
});

it('a folder that is gone costs the file, not the event', () => {
  rmSync(folder, { recursive: true });
  const log = new EventLog(file);
  log.add(event('kept'));
  expect(log.events.length).toBe(1);
  folder = mkdtempSync(join(tmpdir(), 'gaia-events-'));
});
