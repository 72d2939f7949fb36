/**
 * Chooses how a VM is executed on this machine, and says why. Guarantees: KVM is chosen only after it has run a guest
 * here; what was asked for and cannot be is refused by name.
 */
import { GaiaError } from './core/errors.ts';
import type { ExecutionMode } from './core/rounds/round-parts.ts';
import { probeKvm, type KvmProbe } from './io/kvm-probe.ts';
import { vcpusMax } from './io/qemu/profile.ts';

type Accelerator = 'auto' | 'tcg' | 'kvm';

export interface ExecutionWish {
  /** Undefined: whatever fits. */
  readonly mode: ExecutionMode | undefined;
  readonly accelerator: Accelerator;
  readonly vcpus: number;
}

export interface Execution {
  readonly mode: ExecutionMode;
  readonly accelerator: 'tcg' | 'kvm';
  /** One clause for people. */
  readonly reason: string;
}

export async function chooseExecution(wish: ExecutionWish, qemuFile: string): Promise<Execution> {
  if (wish.accelerator === 'tcg') return judgeExecution(wish, undefined);
  return judgeExecution(wish, await probeKvm({ qemuFile }));
}

/** `kvm`: what running a guest under it came to; undefined: nobody looked. */
export function judgeExecution(
  { mode, accelerator, vcpus }: ExecutionWish,
  kvm: Pick<KvmProbe, 'usable' | 'reason'> | undefined,
): Execution {
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > vcpusMax)
    throw new GaiaError('GAIA_VCPUS', `${vcpus} vCPUs are not possible: give --vcpus 1 to ${vcpusMax}`);
  if (accelerator === 'kvm' && kvm?.usable !== true)
    throw new GaiaError(
      'GAIA_KVM',
      `KVM cannot run this guest here, as ${kvm?.reason ?? 'nobody looked'}: give --accel tcg, which is slower`,
    );
  if (mode === 'lockstep') return lockstep(accelerator, vcpus);
  const usable = kvm?.usable === true;
  const chosen = usable ? 'kvm' : 'tcg';
  if (mode !== undefined) return { mode, accelerator: chosen, reason: 'as asked for' };
  if (usable) return { mode: 'vsmr', accelerator: 'kvm', reason: 'KVM runs guests here' };
  const without = kvm === undefined ? 'TCG was asked for' : kvm.reason;
  if (vcpus > 1)
    return { mode: 'vsmr', accelerator: 'tcg', reason: `lockstep runs one vCPU only, and ${without}` };
  return { mode: 'lockstep', accelerator: 'tcg', reason: without };
}

function lockstep(accelerator: Accelerator, vcpus: number): Execution {
  if (vcpus > 1)
    throw new GaiaError(
      'GAIA_LOCKSTEP_VCPUS',
      `Lockstep runs one vCPU, not ${vcpus}: give --vcpus 1, or --mode vsmr`,
    );
  if (accelerator === 'kvm')
    throw new GaiaError(
      'GAIA_LOCKSTEP_KVM',
      'Lockstep counts instructions, which KVM cannot: give --accel tcg, or --mode vsmr',
    );
  return { mode: 'lockstep', accelerator: 'tcg', reason: 'as asked for' };
}
