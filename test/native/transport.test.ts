import { describe, it } from 'vitest';
import { fabric } from '../../native/fabric.ts';
import type { TransportSettings } from '../../vmm/io/transport/open.ts';
import { failureChecks } from '../framework/transport/failure-checks.ts';
import { runCheck } from '../framework/transport/lab.ts';
import { messageChecks } from '../framework/transport/message-checks.ts';
import { regionChecks } from '../framework/transport/region-checks.ts';
import { loadAddon } from './addon.ts';

loadAddon();

const checks = [...messageChecks, ...regionChecks, ...failureChecks];
const transports: readonly (TransportSettings & { readonly name: string })[] = [
  { name: 'shared memory', kind: 'shm' },
  {
    name: 'a fabric over TCP',
    kind: 'fabric',
    provider: 'tcp;ofi_rxm',
    address: '127.0.0.1',
    times: { refreshUs: 20_000, silenceUs: 1_500_000 },
  },
];

for (const { name, ...settings } of transports) {
  const missing = settings.kind === 'fabric' && fabric() === undefined;
  describe.skipIf(missing)(`${name}${missing ? ' (libfabric-dev is not installed)' : ''}`, () => {
    it.each(checks.map((check) => [check.title, check] as const))('%s', async (_, check) => {
      await runCheck(check, settings);
    });
  });
}
