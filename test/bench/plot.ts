/**
 * Small plots as SVG, written by hand: bars with the range of their runs, and lines. Guarantees: well-formed XML
 * for any label, and the axis begins at zero, so that lengths may be compared, unless it says that it goes by powers
 * of ten.
 */

interface Bar {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
}

export interface BarPlot {
  readonly kind: 'bars';
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly Bar[];
}

interface Line {
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface LinePlot {
  readonly kind: 'lines';
  readonly title: string;
  readonly unit: string;
  readonly xTitle: string;
  readonly lines: readonly Line[];
  /** Left out: from zero on. */
  readonly yScale?: 'powers of ten';
}

export type Plot = BarPlot | LinePlot;

const width = 720;
const labelWidth = 250;
const rightMargin = 30;
const titleHeight = 34;
const axisHeight = 34;
const barHeight = 26;
const lineAreaHeight = 220;
const legendHeight = 18;
const plotWidth = width - labelWidth - rightMargin;
/** Told apart also by those who see no red and green, and on black and white prints by their lightness. */
const colours = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#000000'];

/** One picture with all plots, one below the other. */
export function renderPlots(plots: readonly Plot[]): string {
  let top = 0;
  const parts: string[] = [];
  for (const plot of plots) {
    const body = plot.kind === 'bars' ? renderBars(plot) : renderLines(plot);
    parts.push(`<g transform="translate(0 ${top})">`, ...body.elements, '</g>');
    top += body.height;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" viewBox="0 0 ${width} ${top}" font-family="sans-serif" font-size="13">`,
    `<rect width="${width}" height="${top}" fill="#ffffff"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

interface Body {
  readonly elements: readonly string[];
  readonly height: number;
}

function renderBars({ title, unit, bars }: BarPlot): Body {
  const bottom = titleHeight + bars.length * barHeight;
  const axis = ticks(Math.max(0, ...bars.map(({ value, max }) => Math.max(value, max))));
  const x = (value: number): number => labelWidth + (value / axis.end) * plotWidth;
  return {
    height: bottom + axisHeight,
    elements: [
      heading(`${title}, ${unit}`),
      ...axis.marks.flatMap((mark) => [
        line(x(mark), titleHeight, x(mark), bottom, '#dddddd'),
        text(x(mark), bottom + 18, tickLabel(mark), 'middle'),
      ]),
      ...bars.flatMap(({ label, value, min, max }, index) => {
        const top = titleHeight + index * barHeight;
        const middle = top + barHeight / 2;
        return [
          text(labelWidth - 8, middle + 4, label, 'end'),
          `<rect x="${labelWidth}" y="${top + 4}" width="${round(x(value) - labelWidth)}" height="${barHeight - 8}" fill="${colours[0] ?? ''}"/>`,
          line(x(min), middle, x(max), middle, '#333333'),
          line(x(min), middle - 5, x(min), middle + 5, '#333333'),
          line(x(max), middle - 5, x(max), middle + 5, '#333333'),
        ];
      }),
    ],
  };
}

function renderLines({ title, unit, xTitle, lines, yScale }: LinePlot): Body {
  const bottom = titleHeight + lineAreaHeight;
  const points = lines.flatMap((each) => each.points);
  const xAxis = ticks(Math.max(0, ...points.map(([x]) => x)));
  const ys = points.map(([, y]) => y);
  const byPowers = yScale === 'powers of ten' && ys.some((y) => y > 0);
  const yAxis = byPowers ? powersOfTen(ys.filter((y) => y > 0)) : ticks(Math.max(0, ...ys));
  const x = (value: number): number => labelWidth + (value / xAxis.end) * plotWidth;
  const y = (value: number): number => bottom - yAxis.share(value) * lineAreaHeight;
  return {
    height: bottom + axisHeight + 20 + lines.length * legendHeight,
    elements: [
      heading(`${title}, ${unit}${byPowers ? ', by powers of ten' : ''}`),
      ...yAxis.marks.flatMap((mark) => [
        line(labelWidth, y(mark), width - rightMargin, y(mark), '#dddddd'),
        text(labelWidth - 8, y(mark) + 4, tickLabel(mark), 'end'),
      ]),
      ...xAxis.marks.map((mark) => text(x(mark), bottom + 18, tickLabel(mark), 'middle')),
      text(labelWidth + plotWidth / 2, bottom + 38, xTitle, 'middle'),
      ...lines.flatMap((each, index) => {
        const colour = colours[index % colours.length] ?? '';
        const path = each.points.map(([px, py]) => `${round(x(px))},${round(y(py))}`).join(' ');
        const top = bottom + axisHeight + 24 + index * legendHeight;
        return [
          `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`,
          ...each.points.map(
            ([px, py]) => `<circle cx="${round(x(px))}" cy="${round(y(py))}" r="3" fill="${colour}"/>`,
          ),
          line(labelWidth, top - 4, labelWidth + 18, top - 4, colour, 3),
          text(labelWidth + 26, top, each.label, 'start'),
        ];
      }),
    ],
  };
}

interface Ticks {
  readonly marks: readonly number[];
  /** Where the axis ends: at its last mark. */
  readonly end: number;
  /** Where a value lies: 0 at the beginning of the axis, 1 at its end. */
  readonly share: (value: number) => number;
}

/** From zero to at least `max` in steps of 1, 2 or 5 times a power of ten. */
export function ticks(max: number): Ticks {
  // Below that, steps would be lost in the rounding of numbers.
  if (!(max > 1e-9 && Number.isFinite(max))) return { marks: [0, 1], end: 1, share: (value) => value };
  const rough = max / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
  const count = Math.ceil(max / step - 1e-9);
  const marks = Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)));
  const end = marks.at(-1) ?? 1;
  return { marks, end, share: (value) => value / end };
}

/** From the power of ten below all `values`, which are positive, to the one above. */
function powersOfTen(values: readonly number[]): Ticks {
  const first = Math.floor(Math.log10(Math.min(...values)));
  const last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...values))));
  const marks = Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
  return {
    marks,
    end: 10 ** last,
    share: (value) => (Math.max(first, Math.log10(value)) - first) / (last - first),
  };
}

function tickLabel(value: number): string {
  return value.toLocaleString('en-US', { maximumSignificantDigits: 6 });
}

function heading(content: string): string {
  return `<text x="8" y="21" font-weight="bold">${escape(content)}</text>`;
}

function text(x: number, y: number, content: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}" fill="#333333">${escape(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string, thickness = 1): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${colour}" stroke-width="${thickness}"/>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escape(content: string): string {
  return content.replace(/[&<>"]/g, (character) => entities[character] ?? '');
}
