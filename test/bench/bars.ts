/** What headline figures are wanted to be, so that a report says where one falls short. */
import { figure } from './figure.ts';

type Bar = { readonly most: number } | { readonly least: number };

const bars: readonly (readonly [RegExp, Bar])[] = [
  [/^start_cold_s$/, { most: 480 }],
  [/^start_warm_s$/, { most: 20 }],
  [/^idle_cpu_percent$/, { most: 10 }],
  [/^pause_cycle_1000_pages_us_p50$/, { most: 300 }],
  [/^shm_3_64b_p50_us$/, { most: 5 }],
  [/^memory_speedup_vs_best_peer_ratio$/, { least: 32.3 }],
  [/^disk_speedup_vs_etcd_ratio$/, { least: 1 }],
  [/^leader_change_ms_p50$/, { most: 100 }],
  [/_(lockstep|vsmr)_vs_pair_ratio$/, { least: 0.6 }],
  [/_vsmr_vs_(colo|checkpoint_1gbit)_ratio$/, { least: 1 }],
  [/_gap_ms_p50$/, { most: 150 }],
  [/_gap_ms_p99$/, { most: 500 }],
  [/_errors$/, { most: 0 }],
];

/** What is wanted of the figure called `name`, and whether `value` is that; empty: nothing is said of it. */
export function wanted(name: string, value: number): string {
  const bar = bars.find(([pattern]) => pattern.test(name))?.[1];
  if (bar === undefined) return '';
  const met = 'most' in bar ? value <= bar.most : value >= bar.least;
  const text = 'most' in bar ? `at most ${figure(bar.most)}` : `at least ${figure(bar.least)}`;
  return met ? text : `${text}: MISSED`;
}
