/**
 * The file behind `start --config`: YAML, held to vm.schema.json before anything is done. Guarantee: what is wrong is
 * named with its line, key and what would be right.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv, type ErrorObject } from 'ajv';
import { LineCounter, parseDocument, type Document } from 'yaml';
import { projectFolder } from '../vmm/index.ts';
import { UsageError } from './usage-error.ts';

/** The keys and values of the file, all of them known and of the right shape. Throws `UsageError`. */
export function readStartConfig(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(
      `${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
    );
  }
  return checkStartConfig(text, file);
}

export function checkStartConfig(text: string, file: string): Record<string, unknown> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const [broken] = document.errors;
  if (broken !== undefined) {
    const { line } = lines.linePos(broken.pos[0]);
    throw new UsageError(
      `${file}:${line} is no YAML: ${broken.message.split('\n')[0]?.replace(/:$/, '') ?? ''}`,
    );
  }
  const value: unknown = document.toJS() ?? {};
  const schema = JSON.parse(readFileSync(join(projectFolder(), 'cli/vm.schema.json'), 'utf8')) as Schema;
  const validate = new Ajv({ allErrors: true }).compile(schema);
  if (!validate(value)) {
    const wrong = (validate.errors ?? []).map((error) => explain(error, schema, file, document, lines));
    throw new UsageError([...new Set(wrong)].join('\n'));
  }
  return value as Record<string, unknown>;
}

interface Schema {
  readonly properties: Readonly<Record<string, { readonly description: string }>>;
}

function explain(
  error: ErrorObject,
  schema: Schema,
  file: string,
  document: Document,
  lines: LineCounter,
): string {
  const params = error.params as Readonly<Record<string, unknown>>;
  const unknown = error.keyword === 'additionalProperties' ? String(params['additionalProperty']) : undefined;
  const key = unknown ?? error.instancePath.slice(1);
  const place = `${file}:${lineOf(key, document, lines)}`;
  const known = Object.keys(schema.properties).join(', ');
  if (unknown !== undefined) return `${place} unknown key "${unknown}": the keys are ${known}`;
  if (error.keyword === 'not') return `${place} names an image and a kernel: give one of the two`;
  if (error.keyword === 'dependencies')
    return `${place} gives "${String(params['property'])}" without "${String(params['deps'])}"`;
  const allowed = Array.isArray(params['allowedValues']) ? ` (${params['allowedValues'].join(', ')})` : '';
  const meant = schema.properties[key]?.description;
  const what = key === '' ? 'the file' : `"${key}"`;
  return `${place} ${what} ${error.message ?? 'is wrong'}${allowed}${meant === undefined ? '' : `: ${meant}`}`;
}

/** Of a key at the top, from 1; of the whole document where there is no such key. */
function lineOf(key: string, document: Document, lines: LineCounter): number {
  const contents = document.contents as { items?: { key?: { value?: unknown; range?: number[] } }[] } | null;
  const item = contents?.items?.find((candidate) => candidate.key?.value === key);
  return lines.linePos(item?.key?.range?.[0] ?? 0).line;
}
