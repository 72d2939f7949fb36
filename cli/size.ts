/** Sizes as operators write them: 256M, 1G. */
import { UsageError } from './usage-error.ts';

const units: Readonly<Record<string, number>> = { M: 2 ** 20, MiB: 2 ** 20, G: 2 ** 30, GiB: 2 ** 30 };

/** Bytes of "256M". Throws `UsageError`. */
export function parseMemory(text: string): number {
  const match = /^(\d{1,6})(M|MiB|G|GiB)$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  if (match === null || unit === undefined)
    throw new UsageError(`"${text}" is no amount of memory: write it as 256M or 2G`);
  return Number(match[1]) * unit;
}
