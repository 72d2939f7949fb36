import { describe, expect, it, vi } from 'vitest';
import { fabric } from '../../../native/fabric.ts';
import { toReplicaId } from '../../core/ids.ts';
import { FabricTransport } from './fabric.ts';

vi.mock('../../../native/fabric.ts', () => ({ fabric: vi.fn(), tryAgain: 11 }));

const open = (): FabricTransport =>
  new FabricTransport(toReplicaId(1), { provider: 'tcp;ofi_rxm', address: '127.0.0.1' });
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
