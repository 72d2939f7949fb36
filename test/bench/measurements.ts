/**
 * Collects what a bench measures, row by row. Guarantee: every attempt leaves a trace, a value or the reason why
 * there is none; nothing is measured again because it came out badly.
 */
import { median, summarize, type Summary } from './statistics.ts';

export interface Row {
  readonly name: string;
  readonly unit: string;
  /** In the order of the runs. */
  readonly values: readonly number[];
  /** Null when no run gave a value. */
  readonly summary: Summary | null;
  /** Why runs gave none. */
  readonly failures: readonly string[];
}

interface Collected {
  readonly unit: string;
  readonly values: number[];
  readonly failures: string[];
}

export class Measurements {
  readonly #rows = new Map<string, Collected>();

  add(name: string, unit: string, value: number): void {
    this.#row(name, unit).values.push(value);
  }

  /**
   * Adds the value that `measure` comes to, or notes why it failed. Only an interruption ends the bench: an
   * aborted `signal` is thrown on.
   */
  async attempt(
    name: string,
    unit: string,
    signal: AbortSignal,
    measure: () => Promise<number>,
  ): Promise<boolean> {
    signal.throwIfAborted();
    try {
      const value = await measure();
      signal.throwIfAborted();
      this.add(name, unit, value);
      return true;
    } catch (error) {
      signal.throwIfAborted();
      this.#row(name, unit).failures.push(error instanceof Error ? error.message : String(error));
      return false;
    }
  }

  /** Undefined when there is no value. */
  medianOf(name: string): number | undefined {
    const values = this.#rows.get(name)?.values ?? [];
    return values.length === 0 ? undefined : median(values);
  }

  /** Of medians; undefined when one of the two is missing. */
  ratio(name: string, base: string): number | undefined {
    const above = this.medianOf(name);
    const below = this.medianOf(base);
    return above === undefined || below === undefined ? undefined : above / below;
  }

  rows(): Row[] {
    return [...this.#rows].map(([name, { unit, values, failures }]) => ({
      name,
      unit,
      values,
      summary: values.length === 0 ? null : summarize(values),
      failures,
    }));
  }

  #row(name: string, unit: string): Collected {
    let row = this.#rows.get(name);
    if (row === undefined) {
      row = { unit, values: [], failures: [] };
      this.#rows.set(name, row);
    }
    return row;
  }
}

/** A headline without what could not be measured; three decimals say more than these machines can. */
export function headlineOf(entries: Readonly<Record<string, number | undefined>>): Record<string, number> {
  const headline: Record<string, number> = {};
  for (const [name, value] of Object.entries(entries))
    if (value !== undefined) headline[name] = Math.round(value * 1000) / 1000;
  return headline;
}
