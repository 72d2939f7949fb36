/**
 * Runs the checks of a transport without a test runner, for machines that have none:
 * `node dist/test/framework/transport/suite-main.js PROVIDER ADDRESS [full | brief]`. One line per check; the last says
 * how many held.
 */
import type { FabricProvider } from '../../../vmm/io/transport/fabric.ts';
import { failureChecks } from './failure-checks.ts';
import { ActorPool, runCheck, type Thoroughness } from './lab.ts';
import { messageChecks } from './message-checks.ts';
import { regionChecks } from './region-checks.ts';

const [provider = 'tcp;ofi_rxm', address = '127.0.0.1', thoroughness = 'full'] = process.argv.slice(2);
const times = { refreshUs: 50_000, silenceUs: 5_000_000 };
const checks = [...messageChecks, ...regionChecks, ...failureChecks];

const settings = { kind: 'fabric', provider: provider as FabricProvider, address, times } as const;
// A fresh process for each end of each check, or those that are left where starting one takes seconds.
const pool = thoroughness === 'brief' ? new ActorPool() : undefined;

let held = 0;
for (const check of checks) {
  const startMs = performance.now();
  let outcome = 'holds';
  try {
    await runCheck(check, settings, thoroughness as Thoroughness, pool);
    held++;
  } catch (error) {
    outcome = `FAILS (${(error as Error).message.split('\n').join(' | ')})`;
  }
  process.stdout.write(`check: ${check.title}: ${outcome}, ${Math.round(performance.now() - startMs)} ms\n`);
}
await pool?.end();
process.stdout.write(`SUITE ${held} of ${checks.length} hold\n`);
