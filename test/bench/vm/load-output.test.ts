import { describe, expect, it } from 'vitest';
import { redisFiguresIn, sysbenchFiguresIn, wrkFiguresIn } from './load-output.ts';

describe('what load generators print', () => {
  it('redis-benchmark --csv', () => {
    const csv =
      '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n' +
      '"SET","11077.50","1.2","0.4","1.103","2.0","3.455","17.9"\n';
    expect(redisFiguresIn(csv)).toEqual({ rate: 11077.5, p50Ms: 1.103, p99Ms: 3.455, maxMs: 17.9 });
    expect(() => redisFiguresIn('Could not connect')).toThrow(/missing/);
  });

  it('wrk --latency', () => {
    const text = `Running 2s test
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.56ms    2.14ms  1.05s    88.10%
    Req/Sec     1.19k   156.26     1.43k    70.00%
  Latency Distribution
     50%  890.00us
     75%    4.00ms
     99%   12.01ms
  2382 requests in 2.00s, 1.33MB read
Requests/sec:   1190.30
`;
    expect(wrkFiguresIn(text)).toEqual({ rate: 1190.3, p50Ms: 0.89, p99Ms: 12.01, maxMs: 1050 });
    const broken = `${text}  Socket errors: connect 0, read 1, write 0, timeout 0`;
    expect(() => wrkFiguresIn(broken)).toThrow('read 1');
  });

  it('sysbench run', () => {
    const text = `Latency histogram (values are in milliseconds)
       value  ------------- distribution ------------- count
      20.000 |****                                     3
      30.000 |**************************************** 30
      90.000 |**                                       1

    transactions:                        34     (21.04 per sec.)
    queries:                             680    (420.8 per sec.)
    ignored errors:                      0      (0.00 per sec.)
    reconnects:                          0      (0.00 per sec.)
         max:                                   90.10
         99th percentile:                       89.16
`;
    expect(sysbenchFiguresIn(text)).toEqual({ rate: 21.04, p50Ms: 30, p99Ms: 89.16, maxMs: 90.1 });
    expect(() =>
      sysbenchFiguresIn(text.replace('reconnects:                          0', 'reconnects: 2')),
    ).toThrow('2 reconnections');
  });
});
