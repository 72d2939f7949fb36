/**
 * The file behind `start --config` and `agent --config`: YAML, held to vm.schema.json before anything is done.
 * Guarantee: what is wrong is named with its line, key and what would be right.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv, type ErrorObject } from 'ajv';
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, type Document } from 'yaml';
import { projectFolder } from '../vmm/index.ts';
import { UsageError } from './usage-error.ts';

/** Of a VM with all its replicas on this machine: as flags of `start`. Throws `UsageError`. */
export function readStartConfig(file: string): Record<string, unknown> {
  const value = readVmConfig(file);
  if (Array.isArray(value['replicas']))
    throw new UsageError(
      `${file} lists replicas on separate hosts: run "gaia-vm agent --config ${file}" on each of them`,
    );
  if (value['provider'] !== undefined)
    throw new UsageError(
      `${file} names a "provider", which carries what separate hosts say: here all replicas are on this machine`,
    );
  return value;
}

/** The keys and values of the file, all of them known and of the right shape. Throws `UsageError`. */
export function readVmConfig(file: string): Record<string, unknown> {
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
  const validate = new Ajv({ allErrors: true, allowUnionTypes: true, strictTypes: false }).compile(schema);
  if (!validate(value)) {
    // That a branch was taken says nothing beside what is wrong in it.
    const errors = (validate.errors ?? []).filter(({ keyword }) => keyword !== 'if');
    const wrong = errors.map((error) => explain(error, schema, file, document, lines));
    throw new UsageError([...new Set(wrong)].join('\n'));
  }
  refuseTwice(value as Record<string, unknown>, file, document, lines);
  return value as Record<string, unknown>;
}

/** Two replicas may share neither name nor address. */
function refuseTwice(
  { replicas }: Record<string, unknown>,
  file: string,
  document: Document,
  lines: LineCounter,
): void {
  if (!Array.isArray(replicas)) return;
  for (const key of ['name', 'address'] as const) {
    const values = (replicas as Readonly<Record<string, string>>[]).map((replica) => replica[key] ?? '');
    const at = values.findIndex((value, index) => values.indexOf(value) !== index);
    if (at === -1) continue;
    const line = lineOf(['replicas', String(at), key], document, lines);
    throw new UsageError(
      `${file}:${line} two replicas have the ${key} ${values[at] ?? ''}: give each one of its own`,
    );
  }
}

/** The part of JSON Schema that descriptions are found in. */
interface Schema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly then?: Schema;
  readonly items?: Schema;
}

function explain(
  error: ErrorObject,
  schema: Schema,
  file: string,
  document: Document,
  lines: LineCounter,
): string {
  const params = error.params as Readonly<Record<string, unknown>>;
  const path = error.instancePath.split('/').slice(1);
  const unknown = error.keyword === 'additionalProperties' ? String(params['additionalProperty']) : undefined;
  const place = `${file}:${lineOf(unknown === undefined ? path : [...path, unknown], document, lines)}`;
  const here = schemaAt(schema, path);
  if (unknown !== undefined)
    return `${place} unknown key "${unknown}": the keys are ${Object.keys(here?.properties ?? {}).join(', ')}`;
  if (error.keyword === 'not') return `${place} names an image and a kernel: give one of the two`;
  if (error.keyword === 'dependencies')
    return `${place} gives "${String(params['property'])}" without "${String(params['deps'])}"`;
  if (error.keyword === 'required')
    return `${place} lacks "${String(params['missingProperty'])}": ${here?.properties?.[String(params['missingProperty'])]?.description ?? ''}`;
  const allowed = Array.isArray(params['allowedValues']) ? ` (${params['allowedValues'].join(', ')})` : '';
  const meant = path.length === 0 ? undefined : here?.description;
  const what = path.length === 0 ? 'the file' : `"${path.filter((key) => !/^\d+$/.test(key)).join('.')}"`;
  return `${place} ${what} ${error.message ?? 'is wrong'}${allowed}${meant === undefined ? '' : `: ${meant}`}`;
}

/** What the schema says of the value at a path. */
function schemaAt(schema: Schema, path: readonly string[]): Schema | undefined {
  return path.reduce<Schema | undefined>((found, key) => {
    return /^\d+$/.test(key) ? found?.then?.items : found?.properties?.[key];
  }, schema);
}

/** Of the value at a path, from 1; of what holds it, where there is none. */
function lineOf(path: readonly string[], document: Document, lines: LineCounter): number {
  for (let length = path.length; length > 0; length--) {
    const found = keyAt(document, path.slice(0, length));
    if (found !== undefined) return lines.linePos(found).line;
  }
  return 1;
}

/** Where a key, or an item of a list, begins. */
function keyAt(document: Document, path: readonly string[]): number | undefined {
  const parent: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  const last = path.at(-1) ?? '';
  if (isMap(parent)) {
    const pair = parent.items.find(({ key }) => isScalar(key) && key.value === last);
    return isScalar(pair?.key) ? pair.key.range?.[0] : undefined;
  }
  const item = isSeq(parent) ? parent.items[Number(last)] : undefined;
  return isNode(item) ? item.range?.[0] : undefined;
}
