/** Asks replicas on other hosts, each time anew, over control connections. */
import { GaiaError } from './core/errors.ts';
import { selfCommand } from './io/project-folder.ts';
import type { PeerAddress } from './io/transport/meeting.ts';
import { askPeer, PeerUnreachableError } from './io/transport/peer-question.ts';
import { isLocal, type VmPlan } from './vm-plan.ts';

const answerTimeoutMs = 1000;

/** Of a replica on another host: where its agent listens. */
export function addressOf({ name, replicas }: VmPlan, replica: string): PeerAddress {
  const address = replicas.find((candidate) => candidate.name === replica)?.peerAddress;
  if (address === undefined)
    throw new GaiaError('GAIA_REPLICA_UNKNOWN', `VM ${name} has no replica "${replica}" on another host`);
  return address;
}

/** Throws `PeerUnreachableError` when it does not answer, which says nothing about its guest. */
export async function askReplica(
  plan: VmPlan,
  replica: string,
  ask: 'status' | 'events' | 'hand over' | 'guest off' | 'stop',
  words: Readonly<Record<string, string>> = {},
): Promise<unknown> {
  const question = { vm: plan.name, clusterId: plan.clusterId, ask, words };
  return askPeer(addressOf(plan, replica), question, answerTimeoutMs);
}

/** Ends the VM on all hosts but this one. Throws, with nothing done, when one of them does not answer. */
export async function stopElsewhere(plan: VmPlan): Promise<void> {
  const { name, replicas } = plan;
  const elsewhere = replicas.filter((replica) => !isLocal(plan, replica.name));
  const answers = await Promise.all(
    elsewhere.map((replica) => askReplica(plan, replica.name, 'status').catch((error: unknown) => error)),
  );
  const silent = elsewhere.filter((_replica, at) => answers[at] instanceof PeerUnreachableError);
  if (silent.length > 0)
    throw new GaiaError(
      'GAIA_HOST_UNREACHABLE',
      `The agents of ${silent.map((replica) => `${replica.name} (${addressOf(plan, replica.name).host})`).join(' and ')} do not answer, so VM ${name} cannot be ended as a whole: try again, or run "${selfCommand()} stop ${name} --here" on each host, after which its replica cannot come back`,
    );
  // Whoever refuses has no part in this VM any more.
  const parts = elsewhere.filter((_replica, at) => !(answers[at] instanceof Error));
  await Promise.all(parts.map((replica) => askReplica(plan, replica.name, 'stop')));
}
