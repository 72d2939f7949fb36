import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keepInDocs, renderPage } from './docs.ts';
import type { Report } from './report.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gaia-docs-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function reportOf(bench: string, value: number): Report {
  return {
    schemaVersion: 1,
    bench,
    command: `npm run bench -- ${bench} --docs`,
    date: '2026-01-02T03:04:05Z',
    durationS: 61,
    machine: {
      processor: 'A processor',
      cores: 2,
      memoryMib: 4096,
      kernel: '6.1',
      system: 'Debian 12',
      loadBefore: 0.25,
    },
    versions: { node: '20' },
    commit: '0123456789ab',
    settings: { runs: 1, images: ['a', 'b'] },
    rows: [
      {
        name: `${bench} | row`,
        unit: 's',
        values: [value],
        summary: { count: 1, min: value, p50: value, p99: value, max: value },
        failures: ['first line\nsecond line'],
      },
    ],
    headline: { [`${bench}_s`]: value },
  };
}

const page = (): string => readFileSync(join(folder, 'benchmarks.md'), 'utf8');

describe('the page of benchmarks', () => {
  it('shows where, when, with what and how each figure was measured, and what failed', async () => {
    await keepInDocs(reportOf('boot', 2.5), '<svg/>', folder);
    for (const part of [
      '`npm run bench -- boot --docs`',
      '2026-01-02T03:04:05Z',
      '0123456789ab',
      'A processor, 2 cores, 4096 MiB',
      'first line second line',
      'boot \\| row',
      '(figures/boot.svg)',
    ])
      expect(page()).toContain(part);
    expect(page()).toMatch(/^\| boot_s +\| 2\.5 +\| +\|$/m);
  });

  it('says so when no run has been kept yet', () => {
    expect(renderPage([], () => false)).toContain('None has been kept yet.');
  });

  it('keeps the other benches when one is run anew', async () => {
    await keepInDocs(reportOf('boot', 2.5), '<svg/>', folder);
    await keepInDocs(reportOf('merkle', 7), '<svg/>', folder);
    await keepInDocs(reportOf('boot', 3.5), '<svg/>', folder);
    expect(page().match(/^## .*$/gm)).toEqual(['## boot', '## merkle']);
    expect(page()).toContain('3.5');
    expect(page()).not.toContain('2.5');
  });
});
