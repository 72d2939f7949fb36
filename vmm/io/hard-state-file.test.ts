import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NO_REPLICA, toReplicaId, toTerm } from '../core/ids.ts';
import { HardStateError, HardStateFile } from './hard-state-file.ts';

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-hard-state-'));
  file = join(folder, 'hard-state.json');
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe('the hard state file', () => {
  it('gives back term and vote to the next process, which has a higher number', () => {
    const first = new HardStateFile(file, 7n);
    expect(first.initial).toEqual({ clusterId: 7n, term: 0, votedFor: NO_REPLICA });
    first.write({ clusterId: 7n, term: toTerm(5), votedFor: toReplicaId(2) });
    const second = new HardStateFile(file, 7n);
    expect(second.initial).toEqual({ clusterId: 7n, term: 5, votedFor: 2 });
    expect(second.processNumber).toBe(first.processNumber + 1);
  });

  it('of another cluster is refused and left as it is', () => {
    new HardStateFile(file, 7n);
    const before = readFileSync(file, 'utf8');
    expect(() => new HardStateFile(file, 8n)).toThrow(HardStateError);
    expect(readFileSync(file, 'utf8')).toBe(before);
  });

  it.each(['', '{', '{"clusterId":"7","term":1}', 'null'])('that holds %j is refused and left', (text) => {
    writeFileSync(file, text);
    expect(() => new HardStateFile(file, 7n)).toThrow(HardStateError);
    expect(readFileSync(file, 'utf8')).toBe(text);
  });
});
