import { expect, test } from 'vitest';
import { folders } from './folders.ts';

test('everything lies where Debian keeps such things', () => {
  expect(folders({})).toEqual({
    run: '/run/gaia-vm',
    state: '/var/lib/gaia-vm',
    cache: '/var/cache/gaia-vm',
  });
  expect(folders({ GAIA_ROOT: '' })).toEqual(folders({}));
});

test('GAIA_ROOT moves all folders at once', () => {
  expect(folders({ GAIA_ROOT: '/srv/x' })).toEqual({
    run: '/srv/x/run',
    state: '/srv/x/lib',
    cache: '/srv/x/cache',
  });
});

test('a GAIA_ROOT that depends on the working folder is refused', () => {
  expect(() => folders({ GAIA_ROOT: 'x' })).toThrow(expect.objectContaining({ code: 'GAIA_ROOT_RELATIVE' }));
});
