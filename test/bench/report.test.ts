import { describe, expect, it } from 'vitest';
import { Measurements } from './measurements.ts';
import { figure } from './figure.ts';
import { makeReport, renderReport, type Report } from './report.ts';

async function sample(): Promise<Report> {
  const measurements = new Measurements();
  measurements.add('memcached ready', 's', 2.25);
  measurements.add('memcached ready', 's', 3.75);
  const { signal } = new AbortController();
  await measurements.attempt('start', 's', signal, () => Promise.reject(new Error('no quorum')));
  return makeReport(
    {
      bench: 'boot',
      command: 'npm run bench -- boot',
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
      commit: null,
    },
    {
      settings: { runs: 2 },
      versions: { redis: '7' },
      rows: measurements.rows(),
      headline: { memcached_ready_s_p50: 3, start_warm_s: 21, idle_cpu_percent: 9 },
      plots: [],
    },
  );
}

describe('a report', () => {
  it('as JSON has the fields that readers rely on', async () => {
    const value = JSON.parse(JSON.stringify(await sample())) as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(
      expect.arrayContaining(['machine', 'versions', 'commit', 'settings', 'rows', 'headline']),
    );
    expect(value['versions']).toEqual({ node: '20', redis: '7' });
    expect(value['headline']).toEqual({ memcached_ready_s_p50: 3, start_warm_s: 21, idle_cpu_percent: 9 });
  });

  it('as text shows median, range, and every failed run with its reason', async () => {
    const text = renderReport(await sample());
    expect(text).toMatch(/^memcached ready +s +3 +2\.25 +3\.75 +2 +0$/m);
    expect(text).toMatch(/^start +s +- +- +- +0 +1$/m);
    expect(text).toContain('start: no quorum');
    expect(text).toContain('commit unknown');
  });

  it('says what is wanted of a headline figure, and where it falls short', async () => {
    const text = renderReport(await sample());
    expect(text).toMatch(/^start_warm_s +21 +at most 20: MISSED$/m);
    expect(text).toMatch(/^idle_cpu_percent +9 +at most 10$/m);
    expect(text).toMatch(/^memcached_ready_s_p50 +3$/m);
  });
});

describe('a figure', () => {
  it.each([
    [12345.6, '12,346'],
    [3.14159, '3.142'],
    [0.00123456, '0.001235'],
    [0, '0'],
    [Number.NaN, '-'],
  ])('%d is written %s', (value, text) => {
    expect(figure(value)).toBe(text);
  });
});
