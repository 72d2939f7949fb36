import { expect, test } from 'vitest';
import { renderTable, renderYaml } from './output.ts';

test('columns are as wide as their widest cell and lines end without spaces', () => {
  expect(
    renderTable([
      ['a', 'bbb', 'c'],
      ['aaa', 'b', ''],
    ]),
  ).toBe('a    bbb  c\naaa  b');
});

test('a style does not change the widths', () => {
  const styled = renderTable([['a', 'b']], (_row, column, cell) => (column === 0 ? `<${cell}>` : cell));
  expect(styled).toBe('<a>  b');
});

test('YAML holds the same values as JSON', () => {
  expect(
    renderYaml({
      schemaVersion: 1,
      text: 'a: "b"\n',
      nothing: null,
      left: undefined,
      empty: [],
      list: [1, { a: 1, b: ['x'] }],
      nested: { deep: { yes: true } },
    }),
  ).toBe(
    [
      'schemaVersion: 1',
      'text: "a: \\"b\\"\\n"',
      'nothing: null',
      'empty: []',
      'list:',
      '  - 1',
      '  - a: 1',
      '    b:',
      '      - "x"',
      'nested:',
      '  deep:',
      '    yes: true',
      '',
    ].join('\n'),
  );
});
