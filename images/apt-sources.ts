/**
 * Takes the Debian bookworm package sources from the machine's own apt configuration, so that mirrors and
 * proxies the operator has chosen are used and nothing else is: other suites and other vendors stay out.
 */

import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { systemErrorCode } from './error.ts';

/** Suites of the one Debian release that the images are made of. */
const suitePattern = /^(?:stable-)?bookworm(?:-updates|-security|\/updates)?$/;

/**
 * Resolves with the text of a deb822 `.sources` file; empty when the machine has no such source.
 * `aptFolder` is /etc/apt outside tests.
 */
export async function readBookwormSources(aptFolder: string): Promise<string> {
  const stanzas: string[] = [];
  for (const file of await sourceFiles(aptFolder)) {
    const text = await readFile(file, 'utf8');
    stanzas.push(...(file.endsWith('.sources') ? filterStanzas(text) : convertLines(text)));
  }
  return stanzas.map((stanza) => `${stanza}\n`).join('\n');
}

async function sourceFiles(aptFolder: string): Promise<string[]> {
  const listFolder = join(aptFolder, 'sources.list.d');
  const names = await namesIn(listFolder);
  const parts = names.filter((name) => name.endsWith('.list') || name.endsWith('.sources')).sort();
  const main = (await namesIn(aptFolder)).includes('sources.list') ? [join(aptFolder, 'sources.list')] : [];
  return [...main, ...parts.map((name) => join(listFolder, name))];
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Keeps the stanzas of binary packages, with only the wanted suites in them. */
function filterStanzas(text: string): string[] {
  const withoutComments = text.replaceAll(/^#.*\n?/gm, '');
  return withoutComments.split(/\n[ \t]*\n/).flatMap((stanza) => {
    const fields = parseFields(stanza);
    if (fields.get('enabled')?.trim() === 'no') return [];
    if (!(fields.get('types') ?? '').split(/\s+/).includes('deb')) return [];
    const suites = (fields.get('suites') ?? '').split(/\s+/).filter((suite) => suitePattern.test(suite));
    if (suites.length === 0) return [];
    fields.set('types', ' deb');
    fields.set('suites', ` ${suites.join(' ')}`);
    return [[...fields].map(([name, value]) => `${name}:${value}`).join('\n')];
  });
}

/** Field names are compared in lower case; a continued value keeps its line breaks (embedded keys). */
function parseFields(stanza: string): Map<string, string> {
  const fields = new Map<string, string>();
  let current = '';
  for (const line of stanza.split('\n')) {
    const start = /^([A-Za-z-]+):(.*)$/.exec(line);
    if (start?.[1] !== undefined) {
      current = start[1].toLowerCase();
      fields.set(current, start[2] ?? '');
    } else if (/^\s/.test(line)) {
      fields.set(current, `${fields.get(current) ?? ''}\n${line}`);
    }
  }
  return fields;
}

/** Turns `deb [options] URI suite components` lines into stanzas. */
function convertLines(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    const [, options = '', uri = '', suite = '', components = ''] = match ?? [];
    if (!suitePattern.test(suite)) return [];
    const stanza = ['types: deb', `uris: ${uri}`, `suites: ${suite}`, `components: ${components.trim()}`];
    for (const option of options.split(/\s+/)) {
      const [name = '', value = ''] = option.split('=', 2);
      if (name === 'signed-by' || name === 'trusted') stanza.push(`${name}: ${value}`);
    }
    return [stanza.join('\n')];
  });
}
