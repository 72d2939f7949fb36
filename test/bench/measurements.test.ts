import { describe, expect, it } from 'vitest';
import { headlineOf, Measurements } from './measurements.ts';

const { signal } = new AbortController();

describe('measurements', () => {
  it('keep the order of rows and runs', () => {
    const measurements = new Measurements();
    measurements.add('a', 's', 3);
    measurements.add('b', 's', 1);
    measurements.add('a', 's', 2);
    expect(measurements.rows().map(({ name, values }) => [name, values])).toEqual([
      ['a', [3, 2]],
      ['b', [1]],
    ]);
    expect(measurements.medianOf('a')).toBe(2.5);
    expect(measurements.ratio('a', 'b')).toBe(2.5);
  });

  it('a failed attempt stands in its row with its reason', async () => {
    const measurements = new Measurements();
    const attempt = () => Promise.reject(new Error('no guest'));
    expect(await measurements.attempt('a', 's', signal, attempt)).toBe(false);
    expect(await measurements.attempt('a', 's', signal, () => Promise.resolve(2))).toBe(true);
    expect(measurements.rows()[0]).toMatchObject({ values: [2], failures: ['no guest'] });
  });

  it('a row without any value has no summary, no median and no ratio', async () => {
    const measurements = new Measurements();
    await measurements.attempt('a', 's', signal, () => Promise.reject(new Error('no guest')));
    expect(measurements.rows()[0]?.summary).toBeNull();
    expect(measurements.medianOf('a')).toBeUndefined();
    expect(measurements.ratio('a', 'a')).toBeUndefined();
  });

  it('an interruption is no failed run', async () => {
    const measurements = new Measurements();
    const controller = new AbortController();
    const interrupted = measurements.attempt('a', 's', controller.signal, () => {
      controller.abort(new Error('interrupted'));
      return Promise.reject(new Error('the guest was ended'));
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    expect(measurements.rows()).toEqual([]);
  });

  it('a headline leaves out what is missing', () => {
    expect(headlineOf({ a: 1.23456, b: undefined })).toEqual({ a: 1.235 });
  });
});
