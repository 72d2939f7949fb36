/** Reads the words behind `npm run bench --`. Everything that makes no sense is refused before anything is measured. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { UsageError } from '../../cli/usage-error.ts';

export interface BenchArguments {
  readonly name: string;
  readonly quick: boolean;
  readonly cold: boolean;
  readonly docs: boolean;
  /** Only these of the images that the bench loads; empty: all. */
  readonly images: readonly string[];
  readonly jsonFile: string | undefined;
  readonly svgFile: string | undefined;
}

/** Throws UsageError. `names`: of the benches that there are. */
export function parseArguments(words: readonly string[], names: readonly string[]): BenchArguments {
  const { values, positionals } = parsed(words);
  const [name, ...more] = positionals;
  const known = `choose one of ${names.join(', ')}`;
  if (name === undefined) throw new UsageError(`Which bench? Please ${known}`);
  if (!names.includes(name)) throw new UsageError(`There is no bench "${name}": ${known}`);
  if (more.length > 0) throw new UsageError(`One bench at a time: "${more.join(' ')}" is too much`);
  if (values.docs && values.quick) throw new UsageError('--docs keeps full runs only: leave out --quick');
  for (const file of [values.json, values.svg]) {
    if (file !== undefined && !existsSync(dirname(resolve(file))))
      throw new UsageError(`${file} cannot be written: its folder does not exist`);
  }
  const { quick, cold, docs, image: images, json, svg } = values;
  return { name, quick, cold, docs, images, jsonFile: json, svgFile: svg };
}

function parsed(words: readonly string[]) {
  const flag = { type: 'boolean', default: false } as const;
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        ...{ quick: flag, cold: flag, docs: flag },
        image: { type: 'string', multiple: true, default: [] },
        json: { type: 'string' },
        svg: { type: 'string' },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** The words that run the same again, without the places of this machine. */
export function commandOf({ name, quick, cold, docs, images }: BenchArguments): string {
  const flags = Object.entries({ quick, cold, docs }).flatMap(([flag, on]) => (on ? [`--${flag}`] : []));
  const only = images.flatMap((image) => ['--image', image]);
  return ['npm run bench --', name, ...flags, ...only].join(' ');
}
