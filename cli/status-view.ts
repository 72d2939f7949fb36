/** How a VM's status looks: health first, then the replicas, then the figures. */
import type { AgentStatus, ExchangeFigures, ReplicaStatus, VmStatus } from '../vmm/index.ts';
import { paint, renderTable, type Style } from './output.ts';

const styles: Readonly<Record<VmStatus['protection'], Style>> = {
  PROTECTED: 'green',
  DEGRADED: 'yellow',
  STARTING: 'yellow',
  OFF: 'dim',
  'NO-EXECUTOR': 'red',
  'NO-QUORUM': 'red',
};

export function statusDocument(status: VmStatus): object {
  return { vm: status };
}

export function renderStatus(status: VmStatus): string {
  const { name, protection, reason, term, replicasUp, replicasTotal } = status;
  const health = [
    `vm ${paint('bold', name)}`,
    paint(styles[protection], protection),
    reason,
    `term ${term}`,
    `${replicasUp}/${replicasTotal} replicas`,
  ].join('   ');
  return [health, ...trouble(status), replicaTable(status), ...figures(status)].join('\n');
}

/** Since when it is not PROTECTED, what is being done about it, and the one command to run, if any. */
function trouble({ since, doing, command }: VmStatus): string[] {
  const lines: string[] = [];
  if (since !== null) lines.push(`since   ${time(since)}, ${duration(Date.now() - Date.parse(since))} ago`);
  if (doing !== null) lines.push(`doing   ${doing}`);
  if (command !== null) lines.push(`run     ${command}`);
  return lines;
}

function replicaTable({ replicas, leader }: VmStatus): string {
  const header = [' REPLICA', 'ROLE', 'STATE', 'COMMIT', 'APPLIED', 'AGE'];
  return renderTable(
    [header, ...replicas.map((replica) => replicaRow(replica, leader))],
    (row, _column, cell) => (row === 0 ? paint('dim', cell) : cell),
  );
}

function replicaRow({ name, agentRuns, status, ageMs }: ReplicaStatus, leader: string | null): string[] {
  if (status === undefined)
    return [` ${name}`, '?', agentRuns === false ? 'ended' : 'unreachable', '?', '?', '?'];
  return [
    `${name === leader ? '*' : ' '}${name}`,
    status.role,
    status.state,
    count(status.commitIndex),
    status.appliedIndex === 0 ? '-' : count(status.appliedIndex),
    `${Math.round(ageMs)}ms`,
  ];
}

function figures({ replicas, leader, lastFailover }: VmStatus): string[] {
  const lines: string[] = [];
  const status = replicas.find((replica) => replica.name === leader)?.status;
  if (status !== undefined) {
    const perSecond = status.roundsPerSecond.toFixed(1);
    const { exchange } = status;
    const pause = exchange === null ? '' : `   pause ${percentiles(exchange.pauseMs)}`;
    lines.push(
      `rounds  ${perSecond}/s, ${count(status.rounds)} in all   guest time ${(status.virtualMs / 1000).toFixed(1)} s   frames in ${count(status.framesDelivered)}${pause}`,
      ...(exchange === null ? comparisons(status) : exchanges(exchange)),
    );
  }
  if (lastFailover !== null) {
    const { from, to, gapMs } = lastFailover;
    lines.push(`last    failover ${time(lastFailover.time)}  ${from}→${to}  gap ${count(gapMs)} ms`);
  }
  return lines;
}

function comparisons({ verifications, verifiedPages, divergentPages, mismatches }: AgentStatus): string[] {
  return [
    `pages   compared ${count(verifications)} times, ${count(verifiedPages)} pages   divergent ${count(divergentPages)}   unequal roots ${count(mismatches)}`,
  ];
}

/** Means of a round, lately. */
function exchanges({
  dirtyPages,
  divergentPages,
  sentBytes,
  savedPercent,
  heldMs,
}: ExchangeFigures): string[] {
  const percent = dirtyPages === 0 ? 0 : (100 * divergentPages) / dirtyPages;
  return [
    `pages   dirty ${count(Math.round(dirtyPages))}   divergent ${count(Math.round(divergentPages))} (${percent.toFixed(1)} %)   shipped ${(sentBytes / 1e3).toFixed(1)} kB/round   saved ${savedPercent.toFixed(1)} %`,
    `output  held ${percentiles(heldMs)}`,
  ];
}

function percentiles({ p50, p99, max }: ExchangeFigures['pauseMs']): string {
  return `p50 ${p50.toFixed(1)} / p99 ${p99.toFixed(1)} / max ${max.toFixed(0)} ms`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** Of an ISO 8601 time, as operators write it. */
function time(iso: string): string {
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
}

function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}
