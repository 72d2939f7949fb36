import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { addonFile, repository } from './addon.ts';

describe('the build of the addon', () => {
  it("names the Debian package when BLAKE3's sources are missing", () => {
    const folder = mkdtempSync(join(tmpdir(), 'gaia-build-'));
    onTestFinished(() => {
      rmSync(folder, { recursive: true });
    });
    const source = join(repository, 'native');
    const ended = spawnSync('cmake', ['-S', source, '-B', folder, '-DGAIA_BLAKE3_SOURCES=/nonexistent'], {
      encoding: 'utf8',
    });
    expect(ended.status).not.toBe(0);
    expect(ended.stderr.match(/CMake Error/g)).toHaveLength(1);
    expect(ended.stderr).toContain('apt-get install librust-blake3-dev');
  });

  it('shows nothing to the outside but the entry points of Node-API', () => {
    const symbols = execFileSync('nm', ['--dynamic', '--defined-only', '--just-symbols', addonFile()], {
      encoding: 'utf8',
    });
    expect(symbols.trim().split('\n').sort()).toEqual([
      'napi_register_module_v1',
      'node_api_module_get_api_version_v1',
    ]);
  });
});
