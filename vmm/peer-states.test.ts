import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { PeerStates } from './peer-states.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-states-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const open = () => new PeerStates(join(folder, 'peers.json'));

it('has one name for as long as its folder lasts', () => {
  const { self } = open();
  expect(open().self).toBe(self);
  rmSync(join(folder, 'peers.json'));
  expect(open().self).not.toBe(self);
});

it('takes any state of a peer until it has begun, and only that one from then on', () => {
  const states = open();
  expect([states.note('beta', 'one'), states.note('beta', 'two')]).toEqual([true, true]);
  states.begin();
  expect([states.note('beta', 'one'), states.note('beta', 'two')]).toEqual([false, true]);
});

it('knows it after a restart, too', () => {
  const before = open();
  before.note('beta', 'one');
  before.begin();
  const after = open();
  expect(after.begun).toBe(true);
  expect([after.note('beta', 'other'), after.note('beta', 'one')]).toEqual([false, true]);
});

it('refuses a file that was harmed, instead of beginning anew', () => {
  open();
  writeFileSync(join(folder, 'peers.json'), '{"self":"x"');
  expect(open).toThrow(/peers.json cannot be read, and this replica must not take part without it/);
});
