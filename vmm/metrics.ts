/** One agent's figures as Prometheus reads them: text format 0.0.4, names and units after its conventions. */
import type { AgentStatus } from './agent-status.ts';

export const metricsContentType = 'text/plain; version=0.0.4; charset=utf-8';

interface Metric {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly value: (status: AgentStatus) => number;
}

const metrics: readonly Metric[] = [
  gauge('gaia_leader', 'Whether this replica leads', (status) => Number(status.role === 'leader')),
  gauge('gaia_serving', 'Whether clients are served by this replica', (status) => Number(status.serving)),
  gauge('gaia_term', 'Term of the log', (status) => status.term),
  counter('gaia_commit_index', 'Records known to be committed', (status) => status.commitIndex),
  counter('gaia_applied_index', 'Records executed by the guest here', (status) => status.appliedIndex),
  gauge(
    'gaia_executing_replicas',
    'Replicas in the committed executing set',
    (status) => status.executing.length,
  ),
  gauge('gaia_missing_agents', 'Agents that have ended', (status) => status.missing.length),
  gauge(
    'gaia_alone_seconds',
    'For how long no other replica has executed; 0 while one does',
    (status) => (status.aloneForMs ?? 0) / 1000,
  ),
  counter('gaia_rounds_total', 'Rounds that ended', (status) => status.rounds),
  counter('gaia_frames_delivered_total', 'Frames given to the guest', (status) => status.framesDelivered),
  counter('gaia_guest_seconds_total', "The guest's own time", (status) => status.virtualMs / 1000),
  counter('gaia_comparisons_total', 'Comparisons found equal', (status) => status.verifications),
  counter('gaia_compared_pages_total', 'Pages compared', (status) => status.verifiedPages),
  counter(
    'gaia_unequal_comparisons_total',
    'Comparisons whose roots differed',
    (status) => status.mismatches,
  ),
  counter('gaia_divergent_pages_total', 'Pages that differed', (status) => status.divergentPages),
  gauge(
    'gaia_round_pause_seconds',
    'How long the guest stood for the last rounds, median; free-running guests only',
    (status) => (status.exchange?.pauseMs.p50 ?? 0) / 1000,
  ),
  gauge(
    'gaia_round_sent_bytes',
    'Bytes sent to the backup in a round, mean of the last ones; free-running guests only',
    (status) => status.exchange?.sentBytes ?? 0,
  ),
  gauge(
    'gaia_transfer_sent_bytes',
    'State sent by the transfer under way',
    (status) => status.transfer?.sentBytes ?? 0,
  ),
  gauge(
    'gaia_failover_gap_seconds',
    'Of the last takeover by this replica',
    (status) => (status.failover?.gapMs ?? 0) / 1000,
  ),
];

export function metricsText(vm: string, status: AgentStatus): string {
  const labels = `{vm="${vm}",replica="${status.name}"}`;
  return metrics
    .map(({ name, type, help, value }) => {
      return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name}${labels} ${value(status)}\n`;
    })
    .join('');
}

function gauge(name: string, help: string, value: Metric['value']): Metric {
  return { name, type: 'gauge', help, value };
}

function counter(name: string, help: string, value: Metric['value']): Metric {
  return { name, type: 'counter', help, value };
}
