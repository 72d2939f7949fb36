/** What the operator is told when a replica refuses the messages of another: what was found, and what to do. */
import type { ReplicaId } from '../ids.ts';
import type { ControlRefusal } from './control-message.ts';

const texts: Record<ControlRefusal, (from: ReplicaId) => string> = {
  malformed: (from) =>
    `A message of replica ${from} is no message of this protocol: run the same version of gaia-vm on all hosts`,
  'protocol version': (from) =>
    `Replica ${from} speaks another version of the protocol: run the same version of gaia-vm on all hosts`,
  'cluster id': (from) =>
    `Replica ${from} belongs to another cluster: see that the addresses name replicas of one VM, and remove what was left of an older one`,
  'replica id': (from) =>
    `Replica ${from} sends under another replica's id, or to another one: see that the addresses name the right hosts`,
  'duplicate replica id': (from) =>
    `Two processes run as replica ${from}: end one of them; a replica whose disk was replaced is added under a new id`,
};

export function refusalText(refusal: ControlRefusal, from: ReplicaId): string {
  return texts[refusal](from);
}
