import { describe, expect, test } from 'vitest';
import { debianKeyring, parseList, parseSources, renderSourceEntries } from './debian-entries.ts';

describe('entries in the deb822 format', () => {
  test('of Debian are kept, whatever mirror the operator chose', () => {
    const entries = parseSources(
      [
        'Types: deb',
        '# a comment',
        'URIs: http://mirror.example/debian',
        'Suites: bookworm bookworm-updates bookworm-backports',
        'Components: main contrib',
        `Signed-By: ${debianKeyring}`,
        '',
        'Types: deb',
        'URIs: mirror+file:///etc/apt/mirrors/debian-security.list',
        'Suites: bookworm-security',
        'Components: main',
        'Check-Valid-Until: no',
      ].join('\n'),
    );
    expect(entries).toEqual([
      {
        uris: ['http://mirror.example/debian'],
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main'],
        signedBy: debianKeyring,
        checkValidUntil: undefined,
      },
      {
        uris: ['mirror+file:///etc/apt/mirrors/debian-security.list'],
        suites: ['bookworm-security'],
        components: ['main'],
        signedBy: debianKeyring,
        checkValidUntil: 'no',
      },
    ]);
  });

  test.each([
    ['signed by another keyring', 'Signed-By: /usr/share/keyrings/vendor.gpg'],
    ['signed by a key in the entry itself', 'Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA'],
    ['switched off', `Signed-By: ${debianKeyring}\nEnabled: no`],
  ])('that are %s are left out', (_what, field) => {
    const text = `Types: deb\nURIs: https://vendor.example/debian\nSuites: bookworm\nComponents: main\n${field}\n`;
    expect(parseSources(text)).toEqual([]);
  });
});

describe('entries in the one-line format', () => {
  test('of Debian are kept, third parties and other suites are not', () => {
    const entries = parseList(
      [
        'deb http://deb.example/debian bookworm main non-free # the archive',
        'deb-src http://deb.example/debian bookworm main',
        '# deb http://deb.example/debian bookworm-updates main',
        `deb [arch=amd64 signed-by=${debianKeyring}] http://local.example/mirror bookworm/updates main`,
        'deb https://vendor.example/apt bookworm main',
        'deb [signed-by=/etc/apt/vendor.gpg] https://vendor.example/debian bookworm main',
        'deb http://deb.example/debian bookworm-backports main',
        'deb http://deb.example/debian bookworm stable',
      ].join('\n'),
    );
    expect(entries.map(({ uris, suites }) => `${uris.join()} ${suites.join()}`)).toEqual([
      'http://deb.example/debian bookworm',
      'http://deb.example/debian bookworm',
      'http://local.example/mirror bookworm/updates',
    ]);
  });

  test('never carry over that an archive is trusted without a signature', () => {
    const entries = parseList('deb [trusted=yes] http://deb.example/debian bookworm main');
    const text = renderSourceEntries(entries);
    expect(text).not.toMatch(/trusted/i);
    expect(text).toContain(`Signed-By: ${debianKeyring}`);
  });
});

test('the private entries ask for sources only, each once', () => {
  const entries = parseList(
    'deb http://deb.example/debian bookworm main\ndeb-src http://deb.example/debian bookworm main',
  );
  expect(renderSourceEntries(entries)).toBe(
    `Types: deb-src\nURIs: http://deb.example/debian\nSuites: bookworm\nComponents: main\nSigned-By: ${debianKeyring}\n`,
  );
});
