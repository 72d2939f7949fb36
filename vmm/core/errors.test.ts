import { expect, it } from 'vitest';
import { explainError, GaiaError } from './errors.ts';

it('a log gets one line of what an operator can mend, also when it comes from another thread', () => {
  const error = new GaiaError('GAIA_LOG_GAP', 'A segment is missing: put it back');
  expect(explainError(error)).toBe('A segment is missing: put it back');
  const cloned = Object.assign(new Error(error.message), { code: error.code });
  expect(explainError(cloned)).toBe('A segment is missing: put it back');
});

it('a log gets anything else with the place where it happened', () => {
  expect(explainError(new Error('A bug'))).toMatch(/^Error: A bug\n +at .*errors\.test\.ts/);
  expect(explainError(Object.assign(new Error('Gone'), { code: 'ENOENT' }))).toContain('errors.test.ts');
  expect(explainError('No error at all')).toBe('No error at all');
});
