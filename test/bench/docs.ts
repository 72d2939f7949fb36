/**
 * Keeps the last full run of each bench in docs/ and writes the page that shows them. Guarantee: the page depends on
 * nothing but the results kept, so a new run of one bench leaves the others as they are.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { figure } from './figure.ts';
import { failuresOf, headlineTable, tableOf, type Report } from './report.ts';

/** Stores `report` and its plot, then writes benchmarks.md anew from all reports in `docsFolder`. */
export async function keepInDocs(report: Report, svg: string, docsFolder: string): Promise<void> {
  const resultFolder = join(docsFolder, 'benchmarks');
  const figureFolder = join(docsFolder, 'figures');
  for (const folder of [resultFolder, figureFolder]) mkdirSync(folder, { recursive: true });
  writeFileSync(join(figureFolder, `${report.bench}.svg`), svg);
  await writeFormatted(join(resultFolder, `${report.bench}.json`), JSON.stringify(report));
  const reports = readdirSync(resultFolder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => JSON.parse(readFileSync(join(resultFolder, name), 'utf8')) as Report);
  const hasFigure = (name: string): boolean => existsSync(join(figureFolder, `${name}.svg`));
  await writeFormatted(join(docsFolder, 'benchmarks.md'), renderPage(reports, hasFigure));
}

/** As the repository's own rules want it, which hold for generated files too. */
async function writeFormatted(file: string, content: string): Promise<void> {
  writeFileSync(file, await format(content, { ...(await resolveConfig(file)), filepath: file }));
}

/** The page, not yet laid out. */
export function renderPage(reports: readonly Report[], hasFigure: (bench: string) => boolean): string {
  return [
    '# Benchmarks',
    '',
    'The last full run of each bench, written by `npm run bench -- NAME --docs`. Do not edit.',
    '',
    'Medians over runs that take turns; the machines are shared, so look at the range, too.',
    ...(reports.length === 0 ? ['', 'None has been kept yet.'] : []),
    ...reports.flatMap((report) => ['', ...renderSection(report, hasFigure(report.bench))]),
    '',
  ].join('\n');
}

function renderSection(report: Report, hasFigure: boolean): string[] {
  const { bench, command, date, durationS, machine, versions, commit, settings, rows, headline } = report;
  const failures = failuresOf(rows);
  return [
    `## ${bench}`,
    '',
    markdownTable([
      ['run', ''],
      ['command', `\`${command}\``],
      ['date', `${date}, ${figure(durationS)} s`],
      ['commit', commit ?? 'unknown'],
      ['machine', `${machine.processor}, ${machine.cores} cores, ${machine.memoryMib} MiB`],
      ['system', `${machine.system}, Linux ${machine.kernel}, load ${figure(machine.loadBefore)} before`],
      ...Object.entries(versions),
      ...Object.entries(settings).map(([name, value]) => [name, String(value).replaceAll(',', ', ')]),
    ]),
    '',
    markdownTable(tableOf(rows)),
    '',
    markdownTable([['headline', 'value', 'wanted'], ...headlineTable(headline)]),
    ...(failures.length === 0
      ? []
      : ['', 'Failed runs:', '', ...failures.map((text) => `- ${oneLine(text)}`)]),
    ...(hasFigure ? ['', `![${bench}](figures/${bench}.svg)`] : []),
  ];
}

function markdownTable([header = [], ...rows]: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(tableCell).join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

function tableCell(text: string): string {
  return oneLine(text).replaceAll('|', '\\|');
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}
