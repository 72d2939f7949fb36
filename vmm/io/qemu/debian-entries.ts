/**
 * Reads the machine's own APT entries and keeps those of Debian itself, so that a source package can be
 * fetched from the mirrors the operator chose without changing anything in /etc/apt.
 */
import { readFileSync, readdirSync, existsSync } from 'node:fs';
import { join } from 'node:path';

export interface DebianEntry {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** The path of Debian's keyring, against which APT verifies the Release file. */
  readonly signedBy: string;
  /** Kept from the operator's entry: mirrors of a past day have outdated Release files. */
  readonly checkValidUntil: string | undefined;
}

export const debianKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Debian's own entries below `folder`, in both formats of sources.list(5). */
export function readDebianEntries(folder = '/etc/apt'): DebianEntry[] {
  const parts = join(folder, 'sources.list.d');
  const files = [
    join(folder, 'sources.list'),
    ...(existsSync(parts) ? readdirSync(parts).sort() : []).map((name) => join(parts, name)),
  ].filter((file) => existsSync(file));
  return files.flatMap((file) => {
    const text = readFileSync(file, 'utf8');
    if (file.endsWith('.sources')) return parseSources(text);
    return file.endsWith('.list') ? parseList(text) : [];
  });
}

/** The deb822 format: paragraphs of fields. */
export function parseSources(text: string): DebianEntry[] {
  return text.split(/\n[ \t]*\n/).flatMap((paragraph) => {
    const fields = new Map<string, string>();
    let last = '';
    for (const line of paragraph.split('\n')) {
      if (line.startsWith('#') || line.trim() === '') continue;
      const field = /^([\w-]+):(.*)$/.exec(line);
      if (field?.[1] !== undefined && field[2] !== undefined) {
        last = field[1].toLowerCase();
        fields.set(last, field[2].trim());
      } else if (last !== '') fields.set(last, `${fields.get(last) ?? ''}\n${line}`);
    }
    if (fields.get('enabled')?.toLowerCase() === 'no') return [];
    return debianOnly({
      types: words(fields.get('types')),
      uris: words(fields.get('uris')),
      suites: words(fields.get('suites')),
      components: words(fields.get('components')),
      signedBy: fields.get('signed-by'),
      checkValidUntil: fields.get('check-valid-until'),
    });
  });
}

/** The one-line format: `deb [options] uri suite component…`. */
export function parseList(text: string): DebianEntry[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/.exec(
      line.replace(/#.*/, ''),
    );
    if (match === null) return [];
    const [, type = '', options = '', uri = '', suite = '', components = ''] = match;
    const option = new Map(
      words(options).map((word) => {
        const [key = '', ...value] = word.split('=');
        return [key.toLowerCase(), value.join('=')] as const;
      }),
    );
    return debianOnly({
      types: [type],
      uris: [uri],
      suites: [suite],
      components: words(components),
      signedBy: option.get('signed-by'),
      checkValidUntil: option.get('check-valid-until'),
    });
  });
}

interface AnyEntry {
  readonly types: readonly string[];
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  readonly signedBy: string | undefined;
  readonly checkValidUntil: string | undefined;
}

/**
 * An entry is Debian's when it is signed by Debian's keyring, or names no key and a path of Debian's. In the
 * second case it is held to Debian's keyring too, so that no third party can hand in a QEMU of its own.
 */
function debianOnly(entry: AnyEntry): DebianEntry[] {
  const uris = entry.uris.filter((uri) =>
    entry.signedBy === undefined || entry.signedBy === ''
      ? /\/debian/i.test(uri.replace(/^[\w+]+:\/\/[^/]*/, ''))
      : /^\/\S*debian-archive\S*$/.test(entry.signedBy),
  );
  // Backports and the like hold other upstream releases, which are refused anyway.
  const suites = entry.suites.filter((suite) => /^[a-z]+([-/](updates|security))?$/.test(suite));
  const components = entry.components.filter((component) => component === 'main');
  if (!entry.types.some((type) => type === 'deb' || type === 'deb-src')) return [];
  if (uris.length === 0 || suites.length === 0 || components.length === 0) return [];
  const signedBy = entry.signedBy === undefined || entry.signedBy === '' ? debianKeyring : entry.signedBy;
  return [{ uris, suites, components, signedBy, checkValidUntil: entry.checkValidUntil }];
}

/** The same places as source entries only, in the deb822 format, each once. */
export function renderSourceEntries(entries: readonly DebianEntry[]): string {
  const paragraphs = entries.map((entry) =>
    [
      'Types: deb-src',
      `URIs: ${entry.uris.join(' ')}`,
      `Suites: ${entry.suites.join(' ')}`,
      `Components: ${entry.components.join(' ')}`,
      `Signed-By: ${entry.signedBy}`,
      ...(entry.checkValidUntil === undefined ? [] : [`Check-Valid-Until: ${entry.checkValidUntil}`]),
    ].join('\n'),
  );
  return `${[...new Set(paragraphs)].join('\n\n')}\n`;
}

function words(text: string | undefined): string[] {
  return (text ?? '').split(/\s+/).filter((word) => word !== '');
}
