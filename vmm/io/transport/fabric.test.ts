import { describe, expect, it } from 'vitest';
import { fabric } from '../../../native/fabric.ts';
import { toReplicaId } from '../../core/ids.ts';
import { FabricTransport, type FabricProvider } from './fabric.ts';

const self = toReplicaId(1);

describe.skipIf(fabric() === undefined)('opening a fabric', () => {
  it.each<[FabricProvider, string, RegExp]>([
    ['verbs;ofi_rxm', '127.0.0.1', /needs an RDMA device .* ibverbs-providers/],
    ['tcp;ofi_rxm', '192.0.2.1', /name an address of this machine/],
    ['tcp;ofi_rxm', 'no address', /name an address of this machine/],
  ])('says what is missing where %s has no place at %s', (provider, address, advice) => {
    expect(() => new FabricTransport(self, { provider, address })).toThrow(
      expect.objectContaining({
        code: 'GAIA_FABRIC_PROVIDER',
        message: expect.stringMatching(advice) as string,
      }) as Error,
    );
  });

  it('takes no peer that uses another provider', () => {
    const transport = new FabricTransport(self, { provider: 'tcp;ofi_rxm', address: '127.0.0.1' });
    transport.invite(toReplicaId(2));
    const card = {
      transport: 'fabric',
      provider: 'verbs;ofi_rxm',
      from: 2,
      to: 1,
      session: 1,
      name: '',
      memoryKey: '',
    };
    expect(() => {
      transport.connect(toReplicaId(2), card);
    }).toThrow(/uses the provider verbs;ofi_rxm, replica 1 uses tcp;ofi_rxm/);
    transport.close();
  });

  it('refuses a card whose name or key is no name or key', () => {
    const transport = new FabricTransport(self, { provider: 'tcp;ofi_rxm', address: '127.0.0.1' });
    const peer = toReplicaId(2);
    const card = { transport: 'fabric', provider: 'tcp;ofi_rxm', from: 2, to: 1, session: 1 };
    for (const broken of [
      { name: '00', memoryKey: '00'.repeat(16) },
      { name: '02000000'.repeat(4), memoryKey: '00' },
      { name: '', memoryKey: '' },
    ]) {
      transport.invite(peer);
      expect(() => {
        transport.connect(peer, { ...card, ...broken });
      }).toThrow(expect.objectContaining({ code: 'GAIA_PEER_CARD' }) as Error);
    }
    transport.close();
  });
});
