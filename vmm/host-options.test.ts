import { expect, it } from 'vitest';
import { localReplica, type HostOptions, type ReplicaPlace } from './host-options.ts';

const place = (name: string, host: string): ReplicaPlace => {
  return { name, address: { host, port: 7700 }, bridge: 'br0', stateFolder: null };
};
const options: HostOptions = {
  name: 'web1',
  image: {
    ...{ name: 'memcached', kernel: '/vmlinuz', initrd: null, kernelArguments: [], readyMarker: null },
    ...{ port: 11_211, memoryBytesMin: 1 },
  },
  memoryBytes: 1,
  execution: { mode: undefined, accelerator: 'auto', vcpus: 1 },
  durability: 'disk',
  provider: 'tcp',
  guestAddress: '192.0.2.10/24',
  gateway: '',
  replicas: [place('alpha', '192.0.2.1'), place('beta', '192.0.2.2'), place('gamma', '192.0.2.2')],
};

it('takes the one replica that has an address of this host', () => {
  expect(localReplica(options, undefined, new Set(['127.0.0.1', '192.0.2.1'])).name).toBe('alpha');
});

it('takes the one that is named', () => {
  expect(localReplica(options, 'gamma', new Set(['192.0.2.2'])).name).toBe('gamma');
});

it.each([
  ['a name that the VM does not have', 'delta', '192.0.2.1', /no replica "delta": it has alpha, beta, gamma/],
  [
    'an address of another host',
    'alpha',
    '192.0.2.2',
    /alpha has the address 192.0.2.1, and this host has 192.0.2.2/,
  ],
  ['no replica for this host', undefined, '192.0.2.9', /^No replica of VM web1 has an address of this host/],
  ['two of them', undefined, '192.0.2.2', /^More than one replica of VM web1 has an address/],
])('refuses %s', (_what, wanted, own, message) => {
  expect(() => localReplica(options, wanted, new Set([own]))).toThrow(message);
});
