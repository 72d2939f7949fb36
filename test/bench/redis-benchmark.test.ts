import { describe, expect, it } from 'vitest';
import { requestsPerSecondIn } from './redis-benchmark.ts';

const csv = `"test","rps","avg_latency_ms","min_latency_ms"
"SET","12345.68","1.5","0.2"
"GET","23456.79","1.1","0.1"
`;

describe('the table of redis-benchmark', () => {
  it('gives the rate of each operation, wherever its column stands', () => {
    expect(requestsPerSecondIn(csv, 'GET')).toBe(23456.79);
    expect(requestsPerSecondIn('"test","min","rps"\n"SET","1","2"\n', 'SET')).toBe(2);
  });

  it.each([
    ['an operation that was not run', csv],
    ['an error message', 'Could not connect to Redis at 10.0.0.2:6379: Connection refused'],
    ['nothing', ''],
  ])('%s is no rate', (_what, text) => {
    expect(() => requestsPerSecondIn(text, 'LPUSH')).toThrow('says nothing of LPUSH');
  });
});
