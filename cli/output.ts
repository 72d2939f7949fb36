/**
 * What commands print on stdout: one document per call, as a table for people or as JSON or YAML with a
 * schema version for scripts. Colour appears on a terminal only, and never when NO_COLOR is set.
 */
import { styleText } from 'node:util';
import type { Argv } from 'yargs';

export type OutputFormat = 'table' | 'json' | 'yaml';
export type Style = 'green' | 'yellow' | 'red' | 'dim' | 'bold';

/** Raised when a field changes its meaning or goes; new fields leave it as it is. */
const schemaVersion = 1;

/** Adds `-o json|yaml|table` to a command. */
export function withOutputOption<T>(yargs: Argv<T>): Argv<T & { output: OutputFormat }> {
  const option: { alias: 'o'; describe: string; choices: readonly OutputFormat[]; default: OutputFormat } = {
    alias: 'o',
    describe: 'How to print the result',
    choices: ['table', 'json', 'yaml'],
    default: 'table',
  };
  return yargs.option('output', option);
}

/** Prints `document` as the operator asked; `table` renders it for people. */
export function printDocument(format: OutputFormat, document: object, table: () => string): void {
  const versioned = { schemaVersion, ...document };
  switch (format) {
    case 'table':
      process.stdout.write(`${table()}\n`);
      return;
    case 'json':
      process.stdout.write(`${JSON.stringify(versioned, undefined, 2)}\n`);
      return;
    case 'yaml':
      process.stdout.write(renderYaml(versioned));
  }
}

export function paint(style: Style, text: string): string {
  const coloured = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
  return coloured ? styleText(style, text) : text;
}

/** Columns as wide as their widest cell; the last one is left as it is. Styles apply after the widths. */
export function renderTable(
  rows: readonly (readonly string[])[],
  style: (row: number, column: number, cell: string) => string = (_row, _column, cell) => cell,
): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  return rows
    .map((row, rowIndex) =>
      row
        .map((cell, column) => {
          const padded = column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0);
          return style(rowIndex, column, padded);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Block style; strings are quoted as JSON does, which YAML reads the same way. */
export function renderYaml(value: object): string {
  return `${yamlLines(value).join('\n')}\n`;
}

function yamlLines(value: object): string[] {
  if (Array.isArray(value))
    return value.flatMap((item: unknown) => {
      if (!isFilled(item)) return [`- ${yamlScalar(item)}`];
      return yamlLines(item).map((line, index) => `${index === 0 ? '- ' : '  '}${line}`);
    });
  return Object.entries(value).flatMap(([key, item]: [string, unknown]) => {
    if (item === undefined) return [];
    if (!isFilled(item)) return [`${key}: ${yamlScalar(item)}`];
    return [`${key}:`, ...yamlLines(item).map((line) => `  ${line}`)];
  });
}

function isFilled(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

function yamlScalar(value: unknown): string {
  return value === undefined ? 'null' : JSON.stringify(value);
}
