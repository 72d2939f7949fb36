import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { readBookwormSources } from './apt-sources.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gaia-apt-'));
  await mkdir(join(folder, 'sources.list.d'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function write(name: string, text: string): Promise<void> {
  await writeFile(join(folder, name), text);
}

describe('package sources', () => {
  it('one-line sources of bookworm are taken with their key, others are not', async () => {
    await write(
      'sources.list',
      [
        'deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.example/debian bookworm main non-free # ours',
        'deb-src http://mirror.example/debian bookworm main',
        '# deb http://mirror.example/debian bookworm contrib',
        'deb http://mirror.example/debian trixie main',
        'deb http://vendor.example/apt vendor-bookworm main',
        'deb http://mirror.example/security bookworm-security main',
      ].join('\n'),
    );
    expect((await readBookwormSources(folder)).split('\n\n').map((stanza) => stanza.trim())).toEqual([
      'types: deb\nuris: http://mirror.example/debian\nsuites: bookworm\ncomponents: main non-free\nsigned-by: /keys/debian.gpg',
      'types: deb\nuris: http://mirror.example/security\nsuites: bookworm-security\ncomponents: main',
    ]);
  });

  it('deb822 sources keep an embedded key and lose other suites, sources and comments', async () => {
    await write(
      'sources.list.d/debian.sources',
      [
        'Types: deb deb-src',
        '# a comment',
        'URIs: http://mirror.example/debian',
        'Suites: bookworm trixie bookworm-updates',
        'Components: main',
        'Signed-By:',
        ' -----BEGIN KEY-----',
        ' .',
        ' abc',
        '',
        'Enabled: no',
        'Types: deb',
        'URIs: http://disabled.example/debian',
        'Suites: bookworm',
        'Components: main',
        '',
        'Types: deb',
        'URIs: http://vendor.example/node',
        'Suites: nodistro',
        'Components: main',
      ].join('\n'),
    );
    expect(await readBookwormSources(folder)).toBe(
      [
        'types: deb',
        'uris: http://mirror.example/debian',
        'suites: bookworm bookworm-updates',
        'components: main',
        'signed-by:',
        ' -----BEGIN KEY-----',
        ' .',
        ' abc',
        '',
      ].join('\n'),
    );
  });

  it('a machine without bookworm sources gives none', async () => {
    await write('sources.list', 'deb http://mirror.example/debian trixie main\n');
    await write('sources.list.d/debian.sources.disabled', 'Types: deb\nURIs: http://x\nSuites: bookworm\n');
    expect(await readBookwormSources(folder)).toBe('');
    expect(await readBookwormSources(join(folder, 'absent'))).toBe('');
  });
});
