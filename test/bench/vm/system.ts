/** What can be put under load: a bare VM, a pair of them, gaia-vm, its peers. */
import type { Image } from '../../../images/index.ts';
import type { Target } from './load.ts';

export interface RunningSystem {
  /** Where the load goes; a pair has two, loaded at the same time. */
  readonly targets: readonly Target[];
  /** What the system tells of itself after a run. */
  figures(): Promise<SystemFigures>;
  /** Rejects when the system stands still for good, so that nobody waits for its answers. */
  readonly failure?: Promise<never>;
  stop(): Promise<void>;
}

/** By the row's name; undefined where it has none. */
export type SystemFigures = Readonly<Record<string, { readonly unit: string; readonly value: number }>>;

export interface System {
  readonly name: string;
  readonly describe: string;
  /** Why this machine cannot run it; undefined when it can. */
  whyImpossible(): string | undefined;
  start(image: Image, folder: string, signal: AbortSignal): Promise<RunningSystem>;
}
