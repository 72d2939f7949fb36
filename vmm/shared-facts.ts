/**
 * What all hosts of a VM must have alike, as texts: each is told when two hosts meet, and what differs is named with
 * both values and what to do.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Refusal } from './io/transport/control-line.ts';
import type { GuestPlan, ReplicaPlan } from './vm-plan.ts';

export type SharedFacts = Readonly<Record<string, string>>;

export interface FactsOf {
  readonly name: string;
  readonly durability: string;
  readonly provider: string;
  readonly mode: string;
  readonly guest: Omit<GuestPlan, 'mac' | 'rtcBase'>;
  readonly replicas: readonly Pick<ReplicaPlan, 'name' | 'peerAddress'>[];
  readonly guestAddress: string;
  readonly gateway: string;
  readonly qemuBuild: string;
}

export function sharedFacts(of: FactsOf): SharedFacts {
  const { guest } = of;
  return {
    name: of.name,
    mode: of.mode,
    durability: of.durability,
    provider: of.provider,
    accel: guest.accelerator,
    vcpus: String(guest.vcpus),
    memory: `${guest.memoryBytes / 2 ** 20}M`,
    replicas: of.replicas
      .map(({ name, peerAddress }) => `${name} ${peerAddress?.host ?? ''}:${peerAddress?.port ?? ''}`)
      .join(', '),
    address: of.guestAddress,
    gateway: of.gateway,
    image: guest.image,
    guest: guestDigest(guest),
    qemu: of.qemuBuild,
  };
}

/** Of all that the guest boots from. */
function guestDigest({ kernel, initrd, kernelArguments, machine }: FactsOf['guest']): string {
  const hash = createHash('sha256');
  for (const file of [kernel, initrd]) {
    const bytes = file === null ? Buffer.alloc(0) : readFileSync(file);
    hash.update(`${bytes.length}\n`).update(bytes);
  }
  hash.update(JSON.stringify([kernelArguments, machine]));
  return hash.digest('hex').slice(0, 16);
}

/** Why two hosts cannot run one VM; undefined: they can. */
export function factsRefusal(
  own: { readonly name: string; readonly facts: SharedFacts },
  peer: { readonly name: string; readonly facts: SharedFacts },
): Refusal | undefined {
  const differing = Object.keys(own.facts).filter((key) => own.facts[key] !== peer.facts[key]);
  const key = differing.find((candidate) => candidate !== 'guest' && candidate !== 'qemu') ?? differing[0];
  if (key === undefined) return undefined;
  const [ours = '', theirs = 'nothing'] = [own.facts[key], peer.facts[key]];
  switch (key) {
    case 'qemu':
      return {
        code: 'GAIA_PEER_QEMU',
        text: `Replica ${peer.name} runs QEMU build ${theirs}, replica ${own.name} build ${ours}: run the same version of gaia-vm on both hosts, and "gaia-vm qemu build"`,
      };
    case 'guest':
      return {
        code: 'GAIA_PEER_IMAGE',
        text: `Replica ${peer.name} boots other files as ${own.facts['image'] ?? ''} (digest ${theirs}) than replica ${own.name} (digest ${ours}): copy the kernel and the initrd from one host to the others`,
      };
    case 'mode':
    case 'accel':
      return {
        code: 'GAIA_PEER_MODE',
        text: `Replica ${peer.name} would run with ${key} ${theirs}, replica ${own.name} with ${key} ${ours}: where machines differ, the file has to say "mode" and "accel"`,
      };
    default:
      return {
        code: 'GAIA_PEER_CONFIG',
        text: `The file of replica ${peer.name} says ${key} ${theirs}, that of replica ${own.name} ${ours}: give all hosts the same file`,
      };
  }
}
