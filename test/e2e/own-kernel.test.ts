/** A guest that the operator brings is protected like an image, from its first instruction on. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../images/index.ts';
import { folders } from '../../vmm/index.ts';
import { NetworkNamespace, type NamespaceConnection } from '../framework/network-namespace.ts';
import { leaderOf, TestVm, verified } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined)(`an own kernel (${whyImpossible ?? 'real guest'})`, () => {
  let namespace: NetworkNamespace;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
  });

  afterAll(async () => {
    await namespace.remove();
  });

  it('with its initrd boots on two replicas in step, and answers', async () => {
    const { kernel, initrd } = await findImage('memcached', folders().cache);
    const vm = await TestVm.prepare('own', namespace);
    try {
      const status = await vm.start('--kernel', kernel ?? '', '--initrd', initrd ?? '');
      expect(status.protection).toBe('PROTECTED');
      expect(leaderOf(status).status?.executing).toEqual([0, 1]);
      // The boot ends some time after that; a service that is up answers, and a guest at rest is compared.
      let connection: NamespaceConnection | undefined;
      for (let virtualMs = 1000; connection === undefined; virtualMs += 500) {
        await vm.until(
          (now) => (now.leader === null ? 0 : (leaderOf(now).status?.virtualMs ?? 0)) > virtualMs,
        );
        connection = await namespace.connect(status.address, 11211).catch(() => undefined);
      }
      connection.write('version\r\n');
      expect((await connection.receive((bytes) => bytes.includes('\r\n'))).toString()).toMatch(/^VERSION /);
      await connection.close();
      const compared = await vm.until((now) => verified(now) > 0);
      expect(leaderOf(compared).status?.mismatches).toBe(0);
    } finally {
      await vm.remove();
    }
  });
});
