/** Sums up what the last rounds cost, from their reports: a window of bounded size, for people. */
import { pageBytes } from '../io/qemu/layout.ts';
import type { RoundReport } from '../core/rounds/round-report.ts';
import type { ExchangeFigures, Percentiles } from './guest-driver.ts';

const windowRounds = 512;

type Round = Pick<
  RoundReport,
  'dirtyPages' | 'unionPages' | 'divergentPages' | 'sentBytes' | 'openUs' | 'compareUs' | 'shipUs' | 'applyUs'
> & {
  readonly pauseUs: number;
  readonly heldUs: number;
};

export class RoundFigures {
  readonly #window: Round[] = [];
  #at = 0;

  /** `pauseUs`: how long the guest stood for it. `heldUs`: from the begin of the round until its output left. */
  add(report: RoundReport, pauseUs: number, heldUs: number): void {
    this.#window[this.#at] = { ...report, pauseUs, heldUs };
    this.#at = (this.#at + 1) % windowRounds;
  }

  /** Null: there was no round yet. */
  figures(): ExchangeFigures | null {
    const window = this.#window;
    if (window.length === 0) return null;
    const sum = (of: (round: Round) => number): number => window.reduce((all, round) => all + of(round), 0);
    const dirtyBytes = sum(({ dirtyPages }) => dirtyPages) * pageBytes;
    const meanMs = (of: (round: Round) => number): number => sum(of) / window.length / 1000;
    const sentBytes = sum((round) => round.sentBytes);
    return {
      pauseMs: percentiles(window.map(({ pauseUs }) => pauseUs / 1000)),
      heldMs: percentiles(window.map(({ heldUs }) => heldUs / 1000)),
      openMs: meanMs(({ openUs }) => openUs),
      compareMs: meanMs(({ compareUs }) => compareUs),
      shipMs: meanMs(({ shipUs }) => shipUs),
      applyMs: meanMs(({ applyUs }) => applyUs),
      dirtyPages: sum(({ dirtyPages }) => dirtyPages) / window.length,
      unionPages: sum(({ unionPages }) => unionPages) / window.length,
      divergentPages: sum(({ divergentPages }) => divergentPages) / window.length,
      sentBytes: sentBytes / window.length,
      savedPercent: dirtyBytes === 0 ? 0 : 100 * (1 - sentBytes / dirtyBytes),
    };
  }
}

function percentiles(values: number[]): Percentiles {
  values.sort((one, other) => one - other);
  const at = (share: number): number =>
    values[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: values.at(-1) ?? 0 };
}
