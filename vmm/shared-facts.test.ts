import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { factsRefusal, sharedFacts, type FactsOf } from './shared-facts.ts';

let folder: string;
let of: FactsOf;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-facts-'));
  const [kernel, initrd] = [join(folder, 'vmlinuz'), join(folder, 'initrd')];
  writeFileSync(kernel, 'kernel');
  writeFileSync(initrd, 'initrd');
  of = {
    ...{ name: 'web1', durability: 'disk', mode: 'lockstep', provider: 'tcp' },
    ...{ guestAddress: '192.0.2.10/24', gateway: '' },
    guest: {
      ...{ image: 'memcached', kernel, initrd, kernelArguments: ['quiet'], readyMarker: null, port: null },
      ...{ machine: 'pc', memoryBytes: 256 << 20, vcpus: 1, accelerator: 'tcg', scans: false },
    },
    replicas: [{ name: 'alpha', peerAddress: { host: '192.0.2.1', port: 7700 } }],
    qemuBuild: '0123456789abcdef',
  };
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const refusal = (other: FactsOf) =>
  factsRefusal({ name: 'alpha', facts: sharedFacts(of) }, { name: 'beta', facts: sharedFacts(other) });

it('finds nothing between two hosts that are made of the same', () => {
  expect(refusal({ ...of })).toBeUndefined();
});

it('names a QEMU of another build, with both builds', () => {
  const found = refusal({ ...of, qemuBuild: 'fedcba9876543210' });
  expect(found?.code).toBe('GAIA_PEER_QEMU');
  expect(found?.text).toMatch(/beta runs QEMU build fedcba9876543210, replica alpha build 0123456789abcdef/);
});

it('names another provider of the fabric, with both', () => {
  const found = refusal({ ...of, provider: 'verbs' });
  expect(found?.code).toBe('GAIA_PEER_CONFIG');
  expect(found?.text).toMatch(/replica beta says provider verbs, that of replica alpha tcp: give all hosts/);
});

it('names another image by its contents, where its name is the same', () => {
  const other = sharedFacts(of);
  writeFileSync(join(folder, 'initrd'), 'another');
  const found = factsRefusal({ name: 'alpha', facts: sharedFacts(of) }, { name: 'beta', facts: other });
  expect(found?.code).toBe('GAIA_PEER_IMAGE');
});

it('names what the two files say differently, before what follows from it', () => {
  const found = refusal({ ...of, guest: { ...of.guest, memoryBytes: 512 << 20 }, qemuBuild: 'x' });
  expect(found?.code).toBe('GAIA_PEER_CONFIG');
  expect(found?.text).toMatch(/beta says memory 512M, that of replica alpha 256M/);
});

it('asks for the mode in the file where two machines would choose another one', () => {
  const found = refusal({ ...of, mode: 'vsmr' });
  expect(found?.code).toBe('GAIA_PEER_MODE');
  expect(found?.text).toMatch(/beta would run with mode vsmr, replica alpha with mode lockstep/);
});

it('refuses a peer that tells nothing', () => {
  const found = factsRefusal({ name: 'alpha', facts: sharedFacts(of) }, { name: 'beta', facts: {} });
  expect(found?.code).toBe('GAIA_PEER_CONFIG');
});
