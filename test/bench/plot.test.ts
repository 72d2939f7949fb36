import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { renderPlots, ticks, type BarPlot, type LinePlot } from './plot.ts';

const bars: BarPlot = {
  kind: 'bars',
  title: 'Time to serve',
  unit: 's',
  bars: [
    { label: 'memcached', value: 2, min: 1, max: 4 },
    { label: 'redis', value: 4, min: 4, max: 4 },
  ],
};
const lines: LinePlot = {
  kind: 'lines',
  title: 'Run by run',
  unit: 's',
  xTitle: 'run',
  lines: [
    {
      label: 'memcached',
      points: [
        [1, 2],
        [2, 4],
      ],
    },
  ],
};

/** Whether every element that opens also closes, in order. */
function isBalanced(xml: string): boolean {
  const open: string[] = [];
  for (const [, closing, name, self] of xml.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
    if (closing === '/') {
      if (open.pop() !== name) return false;
    } else if (self !== '/') open.push(name ?? '');
  }
  return open.length === 0;
}

describe('plots', () => {
  it('a bar of twice the value is twice as long', () => {
    const widths = [...renderPlots([bars]).matchAll(/<rect x="\d+"[^>]* width="([\d.]+)"/g)].map((match) =>
      Number(match[1]),
    );
    expect(widths).toHaveLength(2);
    expect(widths[1]).toBeCloseTo(2 * (widths[0] ?? 0), 0);
  });

  it('several plots stand one below the other in one picture', () => {
    const svg = renderPlots([bars, lines]);
    const height = Number(/height="(\d+)"/.exec(svg)?.[1]);
    const [first, second] = [...svg.matchAll(/translate\(0 (\d+)\)/g)].map((match) => Number(match[1]));
    expect(first).toBe(0);
    expect(second).toBeGreaterThan(0);
    expect(height).toBeGreaterThan(second ?? Infinity);
    expect(svg).toContain('<polyline points="');
  });

  it('by powers of ten, ten times as much is as far above one as a hundred times is above ten', () => {
    const points = [
      [3, 2],
      [5, 20],
      [7, 200],
    ] as const;
    const plot: LinePlot = { ...lines, yScale: 'powers of ten', lines: [{ label: 'one', points }] };
    const [low = 0, middle = 0, high = 0] = [...renderPlots([plot]).matchAll(/cy="([\d.]+)"/g)].map((match) =>
      Number(match[1]),
    );
    expect(low).toBeGreaterThan(middle);
    expect(low - middle).toBeCloseTo(middle - high, 0);
  });

  it('any label gives well-formed XML', () => {
    const label = fc.string({ unit: fc.constantFrom('<', '>', '&', '"', "'", 'a', ' ', '/') });
    fc.assert(
      fc.property(label, fc.double({ min: 0, max: 1e6, noNaN: true }), (name, value) => {
        const bar = { label: name, value, min: 0, max: value };
        const svg = renderPlots([
          { ...bars, title: name, bars: [bar] },
          { ...lines, xTitle: name },
        ]);
        expect(isBalanced(svg)).toBe(true);
        expect(svg).not.toMatch(/NaN|Infinity|&(?!amp;|lt;|gt;|quot;)/);
      }),
    );
  });

  it('plots without any value are drawn all the same', () => {
    const svg = renderPlots([
      { ...bars, bars: [] },
      { ...lines, lines: [] },
    ]);
    expect(isBalanced(svg)).toBe(true);
    expect(svg).not.toMatch(/NaN|Infinity/);
  });
});

describe('an axis', () => {
  it('begins at zero, holds the largest value, and has few marks', () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-6, max: 1e9, noNaN: true }), (max) => {
        const { marks, end } = ticks(max);
        expect(marks[0]).toBe(0);
        expect(marks.at(-1)).toBe(end);
        expect(end).toBeGreaterThanOrEqual(max * (1 - 1e-9));
        expect(end).toBeLessThanOrEqual(2 * max);
        expect(marks.length).toBeLessThanOrEqual(7);
      }),
    );
  });

  it('has round marks', () => {
    expect(ticks(0.7).marks).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
    expect(ticks(4).marks).toEqual([0, 1, 2, 3, 4]);
  });
});
