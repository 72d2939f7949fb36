/** The pictures of the merkle bench. */
import { exchangeUs, links, type ExchangeCase } from './exchange-costs.ts';
import { proposalPages } from './hash-rates.ts';
import type { Row } from './measurements.ts';
import type { Plot } from './plot.ts';
import { median } from './statistics.ts';

interface Case {
  readonly share: number;
  readonly found: ExchangeCase;
}

export function exchangePlots(rows: readonly Row[], cases: readonly Case[]): Plot[] {
  const bars = rows
    .filter(({ unit }) => unit === 'GB/s')
    .flatMap(({ name, summary }) =>
      summary === null ? [] : [{ label: name, value: summary.p50, min: summary.min, max: summary.max }],
    );
  const ours = cases.filter(({ found }) => found.pages === proposalPages);
  return [
    { kind: 'bars', title: `Rate over ${proposalPages} scattered pages`, unit: 'GB/s', bars },
    ...links.map((link, index): Plot => {
      const us = (pick: (found: ExchangeCase) => number | undefined) =>
        byShare(ours, ({ found }) => {
          const exchange = found.exchanges[pick(found) ?? 0];
          return exchange === undefined ? NaN : exchangeUs(exchange, link) / 1000;
        });
      return {
        kind: 'lines',
        title: `Finding what differs in ${proposalPages} pages on ${link.name}`,
        unit: 'ms',
        xTitle: '% of the pages differ',
        lines: [
          { label: 'from the top of the tree', points: us(({ exchanges }) => exchanges.length - 1) },
          { label: 'from the leaves (flat)', points: us(() => 0) },
          { label: 'from the level that the rule chose', points: us(({ chosen }) => chosen[index]) },
        ],
      };
    }),
  ];
}

/** Medians over the runs, by divergence. */
function byShare(cases: readonly Case[], value: (each: Case) => number): [number, number][] {
  const shares = [...new Set(cases.map(({ share }) => share))].sort((one, other) => one - other);
  return shares.map((share) => [
    Number((100 * share).toPrecision(3)),
    median(cases.filter((each) => each.share === share).map(value)),
  ]);
}
