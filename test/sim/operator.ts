/**
 * Who runs the cluster: protects the serving guest by a second one, moves the service, and adds, promotes and
 * removes replicas. Asks whoever believes to lead, as an operator would, and obeys refusals.
 */
import type { MembershipChange } from '../../vmm/core/falcon/membership-change.ts';
import type { Members } from '../../vmm/core/falcon/membership.ts';
import type { FalconReplica } from '../../vmm/core/falcon/replica.ts';
import { toReplicaId, type ReplicaId } from '../../vmm/core/ids.ts';
import type { EventQueue } from './event-queue.ts';
import type { FaultPlan } from './fault-plan.ts';
import type { Host } from './host.ts';
import { HOSTS_MAX } from './host-world.ts';
import type { Network } from './network.ts';
import type { Prng } from './prng.ts';

const STATE_TRANSFER_US = 30_000;
/** The operator shrinks no cluster below this many voters, and lets none grow beyond. */
const VOTERS_MIN = 3;
const MEMBERS_MAX = 7;
/** A removed replica is switched off at most so long afterwards. */
const SWITCH_OFF_US_MAX = 1_000_000;

export interface Operated {
  readonly queue: EventQueue;
  readonly prng: Prng;
  readonly plan: FaultPlan;
  readonly network: Network;
  readonly hosts: readonly Host[];
  addHost(members: Members): Host;
}

export class Operator {
  readonly #cluster: Operated;
  readonly #reprotecting = new Set<ReplicaId>();
  transfers = 0;
  memberChanges = 0;

  constructor(cluster: Operated) {
    this.#cluster = cluster;
  }

  begin(): void {
    const { plan } = this.#cluster;
    this.#every(50_000, () => this.reprotect());
    this.#every(plan.transferEveryUs, () => this.#transfer());
    this.#every(plan.membersEveryUs, () => this.#changeMembers());
  }

  #every(intervalUs: number, action: () => void): void {
    if (intervalUs === 0) return;
    const { queue, prng } = this.#cluster;
    queue.after(prng.between(1, 2 * intervalUs), () => {
      action();
      this.#every(intervalUs, action);
    });
  }

  #runs(host: Host): boolean {
    return this.#cluster.queue.nowUs >= host.pausedUntilUs;
  }

  /** The serving leader brings another guest up to its own state, and then names it in the executing set. */
  reprotect(): void {
    const { hosts, network, queue } = this.#cluster;
    const leader = hosts.find((host) => host.replica?.mayServe === true);
    const guest = leader?.guest;
    if (leader?.replica === undefined || guest === undefined || !this.#runs(leader)) return;
    const { replica } = leader;
    const peer = hosts.find((host) => host !== leader && host.running && wantsIn(host, replica));
    if (peer?.guest === undefined || this.#reprotecting.has(peer.id)) return;
    if (network.isBlocked(leader.id, peer.id)) return;
    this.#reprotecting.add(peer.id);
    const { term } = replica;
    const { incarnation } = peer.guest;
    queue.after(STATE_TRANSFER_US, () => {
      this.#reprotecting.delete(peer.id);
      const current = leader.replica;
      if (current?.mayServe !== true || current.term !== term || leader.guest !== guest) return;
      if (peer.guest?.incarnation !== incarnation || !peer.running) return;
      peer.adoptGuest(guest);
      current.proposeExecutingSet([...current.executingSet, { replica: peer.id, incarnation }]);
      leader.step();
      peer.step();
    });
  }

  #transfer(): void {
    const { hosts, prng } = this.#cluster;
    const leader = hosts.find((host) => host.replica?.mayServe === true);
    const peer = prng.pick(hosts);
    if (leader?.replica === undefined || peer === leader || !this.#runs(leader)) return;
    const refusal = leader.replica.transferTo(peer.id, leader.replica.executingSet);
    if (refusal === undefined) this.transfers++;
    leader.step();
  }

  #changeMembers(): void {
    const { hosts, prng } = this.#cluster;
    const leaders = hosts.filter((host) => host.replica?.role === 'leader' && this.#runs(host));
    const leader = leaders.length === 0 ? undefined : prng.pick(leaders);
    if (leader?.replica === undefined) return;
    const change = this.#chooseChange(leader.replica);
    if (change === undefined) {
      // Makes room for removing that replica later.
      const { replica } = leader;
      const alone = replica.executingSet.filter((one) => one.replica === leader.id);
      if (alone.length === 1 && prng.chance(0.3)) replica.proposeExecutingSet(alone);
      leader.step();
      return;
    }
    if (change.kind === 'add' && hosts.length >= HOSTS_MAX) return;
    const told = leader.replica.members;
    const index = leader.replica.proposeMembers(change);
    if (typeof index === 'number' && change.kind === 'add') this.#cluster.addHost(told);
    if (typeof index === 'number') this.#proposed(change, leader, index);
    leader.step();
  }

  #proposed(change: MembershipChange, leader: Host, index: number): void {
    this.memberChanges++;
    const { hosts, queue, prng } = this.#cluster;
    if (change.kind !== 'remove') return;
    // Switched off only once the removal has committed; until then, and for a while after, it may be a nuisance.
    const removed = hosts[change.replica];
    const { term } = leader.replica ?? { term: 0 };
    const look = (): void => {
      if (leader.replica?.role !== 'leader' || leader.replica.term !== term) return;
      if (leader.replica.commitIndex < index) queue.after(20_000, look);
      else queue.after(prng.between(1, SWITCH_OFF_US_MAX), () => removed?.destroy());
    };
    look();
  }

  #chooseChange(replica: FalconReplica): MembershipChange | undefined {
    const { hosts, prng } = this.#cluster;
    const { voters, nonVoters } = replica.members;
    const dead = [...voters, ...nonVoters].filter((id) => hosts[id]?.gone === true);
    if (dead.length > 0 && prng.chance(0.5)) return this.#removal(replica, prng.pick(dead));
    // Who is down, or has just lost its log, would be one voter more that cannot vote.
    const waiting = nonVoters.filter((id) => hosts[id]?.running === true && this.#isWell(id));
    if (waiting.length > 0 && prng.chance(0.7)) return { kind: 'promote', replica: prng.pick(waiting) };
    if (voters.length + nonVoters.length < MEMBERS_MAX && prng.chance(0.4)) {
      return { kind: 'add', replica: toReplicaId(hosts.length) };
    }
    return this.#removal(replica, prng.pick([...voters, ...nonVoters]));
  }

  #isWell(id: ReplicaId): boolean {
    const host = this.#cluster.hosts[id];
    return host?.isLost === false && !host.leftBehind;
  }

  /** Not if a majority of those that remain would not be well: nobody but a careless operator does that. */
  #removal(replica: FalconReplica, victim: ReplicaId): MembershipChange | undefined {
    const remaining = replica.members.voters.filter((id) => id !== victim);
    const wellCount = remaining.filter((id) => this.#isWell(id)).length;
    if (remaining.length < VOTERS_MIN || wellCount * 2 <= remaining.length) return undefined;
    return { kind: 'remove', replica: victim };
  }
}

function wantsIn(host: Host, leader: FalconReplica): boolean {
  const { guest } = host;
  if (guest === undefined || !leader.members.voters.includes(host.id)) return false;
  const set = leader.executingSet;
  return !set.some((one) => one.replica === host.id) && set.length < 2;
}
