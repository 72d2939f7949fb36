/** How a VM's status looks: health first, then the replicas, then the figures. */
import type { ReplicaStatus, VmStatus } from '../vmm/index.ts';
import { paint, renderTable, type Style } from './output.ts';

const styles: Readonly<Record<VmStatus['protection'], Style>> = {
  PROTECTED: 'green',
  DEGRADED: 'yellow',
  STARTING: 'yellow',
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
  return [health, replicaTable(status), figures(status)].filter((part) => part !== '').join('\n');
}

function replicaTable({ replicas, leader }: VmStatus): string {
  const header = [' REPLICA', 'ROLE', 'STATE', 'COMMIT', 'APPLIED', 'AGE'];
  return renderTable(
    [header, ...replicas.map((replica) => replicaRow(replica, leader))],
    (row, _column, cell) => (row === 0 ? paint('dim', cell) : cell),
  );
}

function replicaRow({ name, agentRuns, status, ageMs }: ReplicaStatus, leader: string | null): string[] {
  if (status === undefined) return [` ${name}`, '?', agentRuns ? 'unreachable' : 'ended', '?', '?', '?'];
  return [
    `${name === leader ? '*' : ' '}${name}`,
    status.role,
    status.state,
    count(status.commitIndex),
    status.appliedIndex === 0 ? '-' : count(status.appliedIndex),
    `${Math.round(ageMs)}ms`,
  ];
}

function figures({ replicas, leader }: VmStatus): string {
  const status = replicas.find((replica) => replica.name === leader)?.status;
  if (status === undefined) return '';
  return [
    `rounds  ${count(status.rounds)}   guest time ${(status.virtualMs / 1000).toFixed(1)} s   frames in ${count(status.framesDelivered)}`,
    `pages   compared ${count(status.verifications)} times, ${count(status.verifiedPages)} pages   divergent ${count(status.divergentPages)}   unequal roots ${count(status.mismatches)}`,
  ].join('\n');
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}
