/**
 * The end of the faults: everyone is healed, or only a majority while the others stay cut off or down. What is
 * healed must elect, serve and commit again.
 */
import type { ReplicaId } from '../../vmm/core/ids.ts';
import type { Host } from './host.ts';
import { calm, type Network } from './network.ts';
import type { Prng } from './prng.ts';
import { isolate } from './saboteur.ts';

/** Records that a replica may be behind in a cluster that is well. */
const LAG_MAX = 200;

export interface Healable {
  readonly prng: Prng;
  readonly plan: { readonly healsMajorityOnly: boolean };
  readonly network: Network;
  readonly hosts: readonly Host[];
}

export function heal(cluster: Healable): void {
  const { network } = cluster;
  network.plan = calm(network.plan);
  network.heal();
  if (!cluster.plan.healsMajorityOnly) return;
  for (const host of chooseLeftBehind(cluster)) {
    host.leftBehind = true;
    isolate(network, host.id);
    if (cluster.prng.chance(0.5)) host.crash(true);
  }
}

/** As many as every list of members that is about can spare, beside those whose log is lost. */
function chooseLeftBehind({ hosts, prng }: Healable): Host[] {
  const lists = hosts.map((host) => host.members.voters);
  const chosen = new Set<ReplicaId>();
  const well = (id: ReplicaId): boolean => hosts[id]?.isLost === false && !chosen.has(id);
  for (const host of hosts) {
    if (host.gone || prng.chance(0.5)) continue;
    chosen.add(host.id);
    if (lists.some((voters) => voters.filter(well).length * 2 <= voters.length)) chosen.delete(host.id);
  }
  return hosts.filter((host) => chosen.has(host.id));
}

/** What still keeps the healed part from doing its work; undefined: nothing does. */
export function whatIsMissing(
  hosts: readonly Host[],
  committedCount: number,
  committedBefore: number,
): string | undefined {
  const core = hosts.filter((host) => !host.gone && !host.leftBehind);
  const leaders = core.filter((host) => host.replica?.role === 'leader');
  const leader = leaders[0]?.replica;
  if (leaders.length !== 1 || leader === undefined) return `${leaders.length} leaders after the faults ended`;
  const members = [...leader.members.voters, ...leader.members.nonVoters];
  for (const host of core) {
    if (!members.includes(host.id)) continue;
    if (host.replica === undefined) return `replica ${host.id} did not come back`;
    const lag = committedCount - host.replica.commitIndex;
    if (lag > LAG_MAX) return `replica ${host.id} stays ${lag} records behind`;
    if (host.replica.state.logLost) return `replica ${host.id} is never level again`;
  }
  if (leader.executorState === 'none') {
    const able = core.some((host) => host.replica?.state.eligible === true && members.includes(host.id));
    return able ? 'nobody serves although an eligible executor runs' : undefined;
  }
  if (!leader.mayServe) return `the leader does not serve: ${leader.proposeRefusal ?? ''}`;
  return committedCount <= committedBefore + 10 ? 'nothing new is committed' : undefined;
}
