import type * as fs from 'node:fs';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { fabric, type FabricEndpoint } from '../../../native/fabric.ts';
import { toReplicaId } from '../../core/ids.ts';
import { FabricTransport, type FabricProvider } from './fabric.ts';

vi.mock('../../../native/fabric.ts', () => ({ fabric: vi.fn(), tryAgain: 11 }));
vi.mock('node:fs', async (original) => {
  const actual = await original<typeof fs>();
  return { ...actual, readFileSync: vi.fn(actual.readFileSync) };
});

const open = (provider: FabricProvider = 'tcp;ofi_rxm'): FabricTransport =>
  new FabricTransport(toReplicaId(1), { provider, address: '127.0.0.1' });
const refusal = expect.objectContaining({
  code: 'GAIA_FABRIC_MISSING',
  message: expect.stringMatching(/lacks libfabric: run "apt-get install libfabric-dev", then /) as string,
}) as Error;

describe('a machine without a fabric', () => {
  it('says what to install where the addon was not built', () => {
    vi.mocked(fabric).mockReturnValue(undefined);
    expect(open).toThrow(refusal);
  });

  it('says the same where the addon was built and libfabric is gone', () => {
    const FabricEndpoint = vi.fn(function refuse() {
      throw Object.assign(new Error('Cannot open libfabric.so.1'), { syscall: 'dlopen' });
    });
    vi.mocked(fabric).mockReturnValue({ FabricEndpoint });
    expect(open).toThrow(refusal);
  });
});

/** A provider on which memory cannot be had by this call. Returns what its endpoint is closed by. */
function refuseMemory(syscall: string): () => void {
  const close = vi.fn();
  const endpoint: Partial<FabricEndpoint> = {
    name: () => new Uint8Array(1),
    waitFd: () => -1,
    addMemory() {
      throw Object.assign(new Error(`${syscall} failed with ENOMEM`), { code: 'ENOMEM', syscall });
    },
    close,
  };
  const FabricEndpoint = vi.fn(function make() {
    return endpoint as FabricEndpoint;
  });
  vi.mocked(fabric).mockReturnValue({ FabricEndpoint });
  return close;
}

/** This process may lock so much, and has no right to lock more. */
function limitLockedMemory(limit: string): void {
  const files: Record<string, string> = {
    '/proc/self/limits': `Max locked memory         ${limit}                ${limit}                bytes\n`,
    '/proc/self/status': 'CapEff:\t0000000000000000\n',
  };
  vi.mocked(readFileSync).mockImplementation((path) => files[path as string] ?? '');
}

const tooLittle = (limit: string): Error =>
  expect.objectContaining({
    code: 'GAIA_MEMLOCK',
    message: `The fabric may not pin more memory, this process is limited to ${limit}: raise it ("ulimit -l unlimited", or LimitMEMLOCK=infinity in its systemd unit)`,
    cause: expect.objectContaining({ code: 'ENOMEM', syscall: 'fi_mr_reg' }) as Error,
  }) as Error;

describe('a fabric that may not pin enough memory', () => {
  afterEach(() => vi.mocked(readFileSync).mockReset());

  it('says so at its start over RDMA, with the limit and how to raise it', () => {
    limitLockedMemory('65536');
    const close = refuseMemory('fi_mr_reg');
    expect(() => open('verbs;ofi_rxm')).toThrow(tooLittle('65536 bytes'));
    expect(close).toHaveBeenCalledOnce();
  });

  it('says so when a peer is invited, also where no limit is set', () => {
    limitLockedMemory('unlimited');
    refuseMemory('fi_mr_reg');
    const transport = open();
    expect(() => transport.invite(toReplicaId(2))).toThrow(tooLittle('what the system has'));
    transport.close();
  });

  it('does not blame the limit where there is no memory at all', () => {
    limitLockedMemory('65536');
    refuseMemory('mmap');
    const transport = open();
    expect(() => transport.invite(toReplicaId(2))).toThrow('mmap failed with ENOMEM');
    transport.close();
  });
});
