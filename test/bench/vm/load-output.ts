/** Reads what load generators print. Each reader throws when the output names an error or lacks a figure. */

export interface Figures {
  /** Finished operations a second. */
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The longest that one operation took. */
  readonly maxMs: number;
}

/** `redis-benchmark --csv` of one command. */
export function redisFiguresIn(csv: string): Figures {
  const [header = [], values = []] = csv
    .trim()
    .split('\n')
    .slice(-2)
    .map((line) => line.split(',').map((cell) => cell.replaceAll('"', '')));
  const of = (name: string): number => figure(values[header.indexOf(name)], csv);
  return {
    rate: of('rps'),
    p50Ms: of('p50_latency_ms'),
    p99Ms: of('p99_latency_ms'),
    maxMs: of('max_latency_ms'),
  };
}

/** `wrk --latency`. */
export function wrkFiguresIn(text: string): Figures {
  const fault = /Socket errors.*|Non-2xx.*/.exec(text);
  if (fault !== null) throw new Error(`wrk: ${fault[0]}`);
  const time = (pattern: RegExp): number => {
    const [, value, unit = ''] = pattern.exec(text) ?? [];
    return figure(value, text) * ({ us: 0.001, ms: 1, s: 1000, m: 60_000 }[unit] ?? NaN);
  };
  return {
    rate: figure(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1], text),
    p50Ms: time(/\s50%\s+([\d.]+)(us|ms|s|m)\b/),
    p99Ms: time(/\s99%\s+([\d.]+)(us|ms|s|m)\b/),
    maxMs: time(/Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m)\b/),
  };
}

/** `sysbench run` with `--percentile=99 --histogram=on`; the median is that of the histogram. Errors that
 * `run` was not told to ignore have ended it. */
export function sysbenchFiguresIn(text: string): Figures {
  const count = (pattern: RegExp): number => figure(pattern.exec(text)?.[1], text);
  const reconnects = count(/reconnects:\s+(\d+)/);
  if (reconnects > 0) throw new Error(`sysbench: ${reconnects} reconnections`);
  return {
    rate: count(/transactions:\s+\d+\s+\(([\d.]+) per sec/),
    p50Ms: medianOfHistogram(text),
    p99Ms: count(/99th percentile:\s+([\d.]+)/),
    maxMs: count(/max:\s+([\d.]+)/),
  };
}

/** Lines such as `  12.984 |****   57`: milliseconds, a bar, how many. */
function medianOfHistogram(text: string): number {
  const bins = [...text.matchAll(/^\s*([\d.]+) \|\**\s+(\d+)$/gm)].map(([, ms, count]) => {
    return { ms: Number(ms), count: Number(count) };
  });
  let left = bins.reduce((sum, { count }) => sum + count, 0) / 2;
  for (const { ms, count } of bins) {
    left -= count;
    if (left <= 0) return ms;
  }
  throw new Error(`No histogram in:\n${text}`);
}

function figure(text: string | undefined, all: string): number {
  const value = Number(text);
  if (text === undefined || !Number.isFinite(value)) throw new Error(`A figure is missing in:\n${all}`);
  return value;
}
