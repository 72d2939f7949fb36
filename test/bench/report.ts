/** The result of one bench: JSON for programs, a table for people. Every failed run is shown. */
import { renderTable } from '../../cli/output.ts';
import { wanted } from './bars.ts';
import type { Outcome, Settings } from './bench.ts';
import { figure } from './figure.ts';
import type { Machine } from './machine.ts';
import type { Row } from './measurements.ts';

/** Raised when a field changes its meaning or goes. */
const schemaVersion = 1;

export interface Report {
  readonly schemaVersion: number;
  readonly bench: string;
  /** The words that run it again. */
  readonly command: string;
  /** UTC, when it began. */
  readonly date: string;
  readonly durationS: number;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly commit: string | null;
  readonly settings: Settings;
  readonly rows: readonly Row[];
  readonly headline: Readonly<Record<string, number>>;
}

export function makeReport(
  about: Pick<Report, 'bench' | 'command' | 'date' | 'durationS' | 'machine' | 'versions' | 'commit'>,
  { settings, versions, rows, headline }: Outcome,
): Report {
  return {
    schemaVersion,
    ...about,
    versions: { ...about.versions, ...versions },
    settings,
    rows,
    headline,
  };
}

/** Cells of the table, its header first. */
export function tableOf(rows: readonly Row[]): string[][] {
  return [
    ['WHAT', 'UNIT', 'MEDIAN', 'MIN', 'MAX', 'RUNS', 'FAILED'],
    ...rows.map(({ name, unit, summary, failures }) => [
      name,
      unit,
      ...[summary?.p50, summary?.min, summary?.max].map((value) => figure(value ?? NaN)),
      String(summary?.count ?? 0),
      String(failures.length),
    ]),
  ];
}

/** Every headline key with its value, and what is wanted of it. */
export function headlineTable(headline: Readonly<Record<string, number>>): string[][] {
  return Object.entries(headline).map(([name, value]) => [name, figure(value), wanted(name, value)]);
}

export function failuresOf(rows: readonly Row[]): string[] {
  return rows.flatMap(({ name, failures }) => failures.map((reason) => `${name}: ${reason}`));
}

export function renderReport(report: Report): string {
  const { machine, commit, rows, headline } = report;
  const failures = failuresOf(rows);
  return [
    `bench ${report.bench}   ${report.date}   ${figure(report.durationS)} s   commit ${commit ?? 'unknown'}`,
    `${machine.processor}, ${machine.cores} cores, ${machine.memoryMib} MiB, ${machine.system}, load ${figure(machine.loadBefore)}`,
    '',
    renderTable(tableOf(rows)),
    '',
    renderTable(headlineTable(headline)),
    ...(failures.length === 0 ? [] : ['', 'Failed runs:', ...failures.map((text) => `  ${text}`)]),
  ].join('\n');
}
