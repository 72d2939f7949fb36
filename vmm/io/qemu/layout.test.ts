import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as layout from './layout.ts';

const header = join(import.meta.dirname, '../../../native/gaia-layout.h');

type Table = Readonly<Record<string, number>>;

/** ringOffset as C writes it: ring_offset. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function constants(prefix: string, table: Table): Table {
  return Object.fromEntries(
    Object.entries(table).map(([name, value]) => [`${prefix}${snake(name).toUpperCase()}`, value]),
  );
}

function fields(struct: string, table: Table): Table {
  return Object.fromEntries(
    Object.entries(table).map(([name, value]) => [`offsetof(struct ${struct}, ${snake(name)})`, value]),
  );
}

const structs: Record<string, Table> = {
  gaia_message: layout.messageOffset,
  gaia_ring: layout.ringOffset,
  gaia_block: layout.blockOffset,
  gaia_area: layout.areaOffset,
};

/** Each C expression and the value that the twin has for it. */
const twin: Table = {
  ...constants('GAIA_', {
    magic: layout.magic,
    version: layout.version,
    pageBytes: layout.pageBytes,
    blocksMax: layout.blocksMax,
    blockNameBytes: layout.blockNameBytes,
    ringHeaderBytes: layout.ringHeaderBytes,
    entryHeaderBytes: layout.entryHeaderBytes,
    frameBytesMax: layout.frameBytesMax,
    textBytes: layout.textBytes,
    blockTableOffset: layout.blockTableOffset,
    serialBytesMax: layout.serialBytesMax,
    kindMask: layout.kindMask,
    kindHeaderShift: layout.kindHeaderShift,
    runRelease: layout.runRelease,
    runUntilIdle: layout.runUntilIdle,
    loadKeepCode: layout.loadKeepCode,
    ...layout.status,
  }),
  ...constants('GAIA_RING_', layout.ringIndex),
  ...constants('GAIA_ENTRY_', layout.entryKind),
  ...constants('GAIA_MSG_', layout.messageType),
  ...constants('GAIA_STOP_', layout.stopReason),
  ...Object.fromEntries(
    Object.entries(structs).flatMap(([struct, table]) => Object.entries(fields(struct, table))),
  ),
  'sizeof(struct gaia_message)': layout.messageBytes,
  'sizeof(struct gaia_ring)': layout.ringHeaderBytes,
  'sizeof(struct gaia_block)': layout.blockBytes,
  'sizeof(struct gaia_area)': layout.areaHeaderBytes,
  'sizeof(((struct gaia_message *)0)->a) / sizeof(uint64_t)': layout.messageArguments,
  'sizeof(((struct gaia_message *)0)->text)': layout.textBytes,
  'sizeof(((struct gaia_block *)0)->name)': layout.blockNameBytes,
  'sizeof(((struct gaia_area *)0)->ring_offset) / sizeof(uint64_t)': layout.ringIndex.count,
};

/** What gcc makes of the expressions, given the header. */
function compiled(expressions: readonly string[]): Table {
  const folder = mkdtempSync(join(tmpdir(), 'gaia-layout-'));
  try {
    const source = join(folder, 'layout.c');
    const program = join(folder, 'layout');
    const lines = expressions.map((text) => `printf("%llu\\n", (unsigned long long)(${text}));`);
    writeFileSync(
      source,
      `#include <stddef.h>\n#include <stdio.h>\n#include "${header}"\nint main(void) {\n${lines.join('\n')}\n}\n`,
    );
    execFileSync('gcc', ['-std=c11', '-Wall', '-Wextra', '-Werror', '-o', program, source]);
    const values = execFileSync(program, { encoding: 'utf8' }).trimEnd().split('\n').map(Number);
    return Object.fromEntries(expressions.map((text, i) => [text, values[i] ?? NaN]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const headerText = readFileSync(header, 'utf8').replace(/\/\*[^]*?\*\//g, '');

describe('the layout shared with QEMU', () => {
  it('is the same in TypeScript as the C compiler finds it in the header', () => {
    expect(compiled(Object.keys(twin))).toEqual(twin);
  });

  it('lacks no constant of the header in TypeScript', () => {
    const defined = [...headerText.matchAll(/^\s*(?:#define )?(GAIA_[A-Z_]+)[ ,\n]/gm)].map((m) => m[1]);
    const machinery = ['GAIA_LAYOUT_H', 'GAIA_STATIC_ASSERT'];
    const known = Object.keys(twin).filter((name) => name.startsWith('GAIA_'));
    expect([...new Set(defined)].filter((name) => !machinery.includes(name ?? '')).sort()).toEqual(
      known.sort(),
    );
  });

  it.each(Object.entries(structs))('lacks no field of struct %s in TypeScript', (struct, table) => {
    const body = new RegExp(`struct ${struct} \\{([^}]*)\\}`).exec(headerText)?.[1] ?? '';
    const names = [...body.matchAll(/(\w+)(?:\[\w+\])?;/g)].map((match) => match[1] ?? '');
    expect(names.length).toBeGreaterThan(0);
    expect(Object.keys(table).map(snake)).toEqual(names.filter((name) => !name.startsWith('reserved')));
  });
});
