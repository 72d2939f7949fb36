/**
 * A recipe says what goes into a guest image: Debian packages, files, users, one service with its start
 * command and its ready probe. Recipes are JSON files, the built-in ones and those a user brings alike.
 * Guarantee: a `Recipe` from here is checked field by field, and every file it names has been read, so that
 * building it cannot fail half-way for a reason that lies in the recipe itself.
 */

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { ImageError, systemErrorCode } from './error.ts';

interface RecipeUser {
  readonly name: string;
  /** Both the user id and the id of the group of the same name. */
  readonly id: number;
}

/** One file of the image; its contents come with the recipe, never from the machine that builds. */
interface RecipeFile {
  readonly path: string;
  readonly mode: number;
  readonly contents: Buffer;
}

export interface Recipe {
  /** Version of the layout of recipes; a change to it changes every recipe hash. */
  readonly schema: 1;
  readonly name: string;
  readonly description: string;
  readonly packages: readonly string[];
  /** Packages that count as present although they are not unpacked, beside those no image needs. */
  readonly packagesLeftOut: readonly string[];
  /** Paths in the image that are removed after unpacking. */
  readonly drop: readonly string[];
  /** Kernel modules loaded at start, in this order, after the virtio drivers. */
  readonly modules: readonly string[];
  readonly users: readonly RecipeUser[];
  readonly files: readonly RecipeFile[];
  /** Shell lines run once before the start. */
  readonly prepare: readonly string[];
  /** Shell line that becomes the service; it must stay in the foreground. */
  readonly start: string;
  /** Shell line that succeeds once the service answers. */
  readonly ready: string;
  readonly protocol: string;
  readonly port: number;
  readonly memoryBytesMin: number;
  /** Words added to the kernel command line. */
  readonly kernelArguments: readonly string[];
}

const namePattern = /^[a-z][a-z0-9-]{0,31}$/;
const packagePattern = /^[a-z0-9][a-z0-9+.-]+$/;
const userNamePattern = /^[a-z_][a-z0-9_-]{0,31}$/;
const modulePattern = /^[a-z0-9_-]+$/;
const kernelArgumentPattern = /^[\x21-\x7e]+$/;
const mebibyte = 1 << 20;
const memoryBytesSmallest = 64 * mebibyte;
const generatedBytesMax = 256 * mebibyte;
const fieldNames = new Set([
  'name',
  'description',
  'packages',
  'packagesLeftOut',
  'drop',
  'modules',
  'users',
  'files',
  'prepare',
  'start',
  'ready',
  'protocol',
  'port',
  'memoryBytesMin',
  'kernelArguments',
]);

/** Finds the folder of the sources from the compiled files too: the nearest parent that has package.json. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** Data that lies beside the sources and is not compiled. */
export function imagesDataFile(...parts: string[]): string {
  return join(packageRoot(), 'images', ...parts);
}

/** Names of the built-in recipes, sorted. */
export async function builtInRecipeNames(): Promise<string[]> {
  const files = await readdir(imagesDataFile('recipes'));
  return files
    .filter((file) => file.endsWith('.json'))
    .map((file) => basename(file, '.json'))
    .sort();
}

/**
 * Takes the name of a built-in recipe or the path of a recipe file (anything with a slash or ending in
 * .json). Throws ImageError GAIA_IMAGE_UNKNOWN or GAIA_IMAGE_RECIPE.
 */
export async function findRecipe(nameOrFile: string): Promise<Recipe> {
  if (nameOrFile.includes('/') || nameOrFile.endsWith('.json')) return loadRecipe(nameOrFile);
  const known = await builtInRecipeNames();
  if (!known.includes(nameOrFile)) {
    throw new ImageError(
      'GAIA_IMAGE_UNKNOWN',
      `No image is called "${nameOrFile}": choose one of ${known.join(', ')}, or give the path of a recipe file`,
    );
  }
  return loadRecipe(imagesDataFile('recipes', `${nameOrFile}.json`));
}

/** Reads and checks one recipe file together with the files it names. */
export async function loadRecipe(file: string): Promise<Recipe> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const reason = systemErrorCode(error) === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw new ImageError('GAIA_IMAGE_RECIPE', `Recipe file ${file} ${reason}: check the path`, {
      cause: error,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ImageError('GAIA_IMAGE_RECIPE', `Recipe file ${file} is not valid JSON: mend its syntax`, {
      cause: error,
    });
  }
  const recipe = await parseRecipe(value, file);
  const builtInFile = imagesDataFile('recipes', `${recipe.name}.json`);
  if (existsSync(builtInFile) && resolve(file) !== builtInFile) {
    throw new ImageError(
      'GAIA_IMAGE_RECIPE',
      `Recipe file ${file}: field "name" is "${recipe.name}" like a built-in image: choose another name`,
    );
  }
  return recipe;
}

/** Everything that decides the contents of the image, so equal hashes mean equal recipes. */
export function recipeHash(recipe: Recipe): string {
  const files = recipe.files.map((file) => ({
    ...file,
    contents: createHash('sha256').update(file.contents).digest('hex'),
  }));
  return createHash('sha256')
    .update(JSON.stringify({ ...recipe, files }))
    .digest('hex');
}

/** Checks a parsed recipe; `file` is where it comes from, and the folder its `source` files are in. */
async function parseRecipe(value: unknown, file: string): Promise<Recipe> {
  const fields = new FieldReader(value, file);
  fields.refuseUnknown(fieldNames);
  return {
    schema: 1,
    name: fields.text('name', namePattern, 'lower-case letters, digits and dashes, 32 at most'),
    description: fields.optionalText('description', ''),
    packages: fields.texts('packages', packagePattern, 'names of Debian packages'),
    packagesLeftOut: fields.texts('packagesLeftOut', packagePattern, 'names of Debian packages'),
    drop: fields.texts('drop', /./, 'paths').map((path) => fields.guestPath('drop', path)),
    modules: fields.texts('modules', modulePattern, 'names of kernel modules without .ko'),
    users: fields.list('users').map((user) => parseUser(user)),
    files: await Promise.all(fields.list('files').map((entry) => parseFile(entry, file))),
    prepare: fields.texts('prepare', /./, 'shell lines'),
    start: fields.text('start', /^[^\n]+$/, 'one shell line'),
    ready: fields.text('ready', /^[^\n]+$/, 'one shell line'),
    protocol: fields.text('protocol', namePattern, 'the name of a protocol, such as http'),
    port: fields.integer('port', 1, 65_535),
    memoryBytesMin: fields.integer('memoryBytesMin', memoryBytesSmallest, Number.MAX_SAFE_INTEGER),
    kernelArguments: fields.texts('kernelArguments', kernelArgumentPattern, 'words without spaces'),
  };
}

function parseUser(fields: FieldReader): RecipeUser {
  fields.refuseUnknown(new Set(['name', 'id']));
  return {
    name: fields.text('name', userNamePattern, 'a user name'),
    id: fields.integer('id', 1, 65_533),
  };
}

/** Contents are given as `text`, as `source` (a file beside the recipe) or as `generatedBytes`. */
async function parseFile(fields: FieldReader, recipeFile: string): Promise<RecipeFile> {
  fields.refuseUnknown(new Set(['path', 'mode', 'text', 'source', 'generatedBytes']));
  const path = fields.guestPath('path', fields.text('path', /^\//, 'an absolute path'));
  const mode = parseInt(fields.optionalText('mode', '0644', /^0[0-7]{3}$/), 8);
  const given = ['text', 'source', 'generatedBytes'].filter((name) => fields.has(name));
  if (given.length !== 1) fields.refuse('text', 'or source or generatedBytes must be given, and only one');
  if (given[0] === 'text') return { path, mode, contents: Buffer.from(fields.text('text', /^/, 'text')) };
  if (given[0] === 'generatedBytes') {
    const bytes = fields.integer('generatedBytes', 1, generatedBytesMax);
    return { path, mode, contents: generatedContents(path, bytes) };
  }
  const source = fields.text('source', /./, 'a file beside the recipe');
  const sourceFile = isAbsolute(source) ? source : resolve(dirname(recipeFile), source);
  try {
    return { path, mode, contents: await readFile(sourceFile) };
  } catch (error) {
    return fields.refuse('source', `names ${sourceFile}, which cannot be read`, error);
  }
}

/** Bytes that no compression shortens, the same on every machine: SHA-256 of the path and a counter. */
export function generatedContents(path: string, bytes: number): Buffer {
  const contents = Buffer.alloc(bytes);
  for (let offset = 0, block = 0; offset < bytes; offset += 32, block++) {
    createHash('sha256').update(`${path} ${block}`).digest().copy(contents, offset);
  }
  return contents;
}

/** Reads fields of one JSON object and refuses wrong ones by name. */
class FieldReader {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #file: string;
  readonly #prefix: string;

  constructor(value: unknown, file: string, prefix = '') {
    this.#file = file;
    this.#prefix = prefix;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new ImageError(
        'GAIA_IMAGE_RECIPE',
        `Recipe file ${file}: ${prefix === '' ? 'it' : prefix.slice(0, -1)} must be a JSON object`,
      );
    }
    this.#fields = value as Record<string, unknown>;
  }

  refuse(name: string, reason: string, cause?: unknown): never {
    const message = `Recipe file ${this.#file}: field "${this.#prefix}${name}" ${reason}`;
    throw new ImageError('GAIA_IMAGE_RECIPE', message, { cause });
  }

  refuseUnknown(known: ReadonlySet<string>): void {
    for (const name of Object.keys(this.#fields)) {
      if (!known.has(name)) this.refuse(name, `is not known: the fields are ${[...known].join(', ')}`);
    }
  }

  has(name: string): boolean {
    return this.#fields[name] !== undefined;
  }

  text(name: string, pattern: RegExp, wanted: string): string {
    const value = this.#fields[name];
    if (typeof value !== 'string' || !pattern.test(value)) this.refuse(name, `must be ${wanted}`);
    return value;
  }

  optionalText(name: string, otherwise: string, pattern = /^/): string {
    return this.has(name) ? this.text(name, pattern, 'text of the right form') : otherwise;
  }

  texts(name: string, pattern: RegExp, wanted: string): string[] {
    const value = this.#fields[name] ?? [];
    if (!Array.isArray(value)) return this.refuse(name, `must be a list of ${wanted}`);
    return value.map((item: unknown) => {
      if (typeof item !== 'string' || !pattern.test(item)) this.refuse(name, `must be a list of ${wanted}`);
      return item;
    });
  }

  integer(name: string, min: number, max: number): number {
    const value = this.#fields[name];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      this.refuse(name, `must be a whole number from ${min} to ${max}`);
    }
    return value;
  }

  list(name: string): FieldReader[] {
    const value = this.#fields[name] ?? [];
    if (!Array.isArray(value)) return this.refuse(name, 'must be a list');
    return value.map((item, index) => new FieldReader(item, this.#file, `${this.#prefix}${name}[${index}].`));
  }

  /** Relative to the root of the image, and never outside it. */
  guestPath(name: string, path: string): string {
    const parts = path.split('/').filter((part) => part !== '');
    if (parts.length === 0 || parts.includes('..') || parts.includes('.')) {
      this.refuse(name, `must stay inside the image, but says "${path}"`);
    }
    return parts.join('/');
  }
}
