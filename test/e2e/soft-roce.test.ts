/**
 * The transport over real RDMA verbs: `verbs;ofi_rxm` on a software RDMA device, in a small guest whose kernel has one.
 * The guest runs the same checks as test/native/transport.test.ts, with real processes.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addonFile } from '../../native/binding.ts';
import { qemuBinary } from '../framework/qemu-binary.ts';
import { buildRdmaGuest, guestAddress, runRdmaGuest, type RdmaGuest } from '../framework/rdma-guest.ts';

/** As the checks are, for a quarter of an hour; or they repeat less and share processes: emulated processors are slow. */
const thoroughness = process.env['GAIA_SOAK'] === undefined ? 'brief' : 'full';
const buildLimitMs = 300_000;
const runLimitMs = 1_800_000;
const programs = 'dist/test/framework/transport';
const whyImpossible = whySkipped();

function whySkipped(): string | undefined {
  if (process.env['GAIA_SOAK'] === undefined && process.env['GAIA_SOFT_ROCE'] === undefined)
    return 'runs with npm run soak, or briefly with GAIA_SOFT_ROCE=1';
  const built = existsSync(join(dirname(addonFile()), 'gaia_fabric.node'));
  return built ? undefined : 'the fabric addon was not built: libfabric-dev is not installed';
}

describe.skipIf(whyImpossible !== undefined)(`Soft-RoCE (${whyImpossible ?? 'in a guest'})`, () => {
  let folder: string;
  let guest: RdmaGuest;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'gaia-rdma-'));
    guest = await buildRdmaGuest(folder, [
      `/bin/busybox sh -c 'ulimit -l 16384; exec node ${programs}/memlock-main.js ${guestAddress}'`,
      `node ${programs}/suite-main.js 'verbs;ofi_rxm' ${guestAddress} ${thoroughness}`,
    ]);
  }, buildLimitMs);

  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  it(
    'carries everything that the transport promises, and says so where memory may not be pinned',
    async () => {
      const lines: string[] = [];
      await runRdmaGuest(qemuBinary(), guest, runLimitMs, (line) => lines.push(line));
      console.log(lines.filter((line) => /^(check|SUITE|MEMLOCK)/.test(line)).join('\n'));
      expect(lines.find((line) => line.startsWith('link rxe0/1'))).toContain('state ACTIVE');
      expect(lines.find((line) => line.startsWith('MEMLOCK'))).toMatch(
        /^MEMLOCK GAIA_MEMLOCK .* limited to 16777216 bytes: raise it/,
      );
      expect(lines.filter((line) => line.includes('FAILS'))).toEqual([]);
      expect(lines.find((line) => line.startsWith('SUITE'))).toMatch(/^SUITE (\d+) of \1 hold$/);
    },
    runLimitMs + 10_000,
  );
});
