/** What a bench is, and what it hands over. */
import type { Row } from './measurements.ts';
import type { Plot } from './plot.ts';

export interface BenchOptions {
  /** Ends within 5 minutes; fewer systems and runs, said in the settings. */
  readonly quick: boolean;
  /** Measures also what begins with nothing in any cache. */
  readonly cold: boolean;
  /** Of those that the bench names, the ones to measure with. */
  readonly images: readonly string[];
  /** Tells a person what is being measured. */
  readonly progress: (text: string) => void;
  readonly signal: AbortSignal;
}

export type Settings = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface Outcome {
  /** How it was measured: runs, sizes, and who was given what. */
  readonly settings: Settings;
  /** Versions of what took part, beside those that every report names. */
  readonly versions: Readonly<Record<string, string>>;
  readonly rows: readonly Row[];
  /** Lower-case names, the unit at the end; what could not be measured is left out. */
  readonly headline: Readonly<Record<string, number>>;
  readonly plots: readonly Plot[];
}

export interface Bench {
  readonly name: string;
  /** One line for the list of benches. */
  readonly describe: string;
  /** What a run can be confined to, if anything. */
  readonly images?: readonly string[];
  run(options: BenchOptions): Promise<Outcome>;
}
