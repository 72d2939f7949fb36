/** The unit that keeps an agent running on a host. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { projectFolder } from '../../vmm/index.ts';

const tool = spawnSync('systemd-analyze', ['--version']);

it.skipIf(tool.status !== 0)(
  'is one that systemd takes without a word (skipped without systemd-analyze)',
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'gaia-unit-'));
    try {
      const unit = join(folder, 'gaia-vm@web1.service');
      copyFileSync(join(projectFolder(), 'cli/systemd/gaia-vm@.service'), unit);
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);
