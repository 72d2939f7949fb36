/** Waits until a VM is as it is wanted. Guarantee: ends with the state wanted, or says what it was instead. */
import { setTimeout as delay } from 'node:timers/promises';
import { GaiaError } from './core/errors.ts';
import { vmStatus, type VmStatus } from './vm-status.ts';

const pollMs = 50;

/** What can be waited for, and when it holds. */
const conditions = {
  protected: ({ protection }: VmStatus) => protection === 'PROTECTED',
  serving: ({ leader }: VmStatus) => leader !== null,
  off: ({ protection }: VmStatus) => protection === 'OFF',
  degraded: ({ protection }: VmStatus) => protection === 'DEGRADED',
} as const;

export type WaitCondition = keyof typeof conditions;
export const waitConditions = Object.keys(conditions) as readonly WaitCondition[];

export interface WaitOptions {
  readonly name: string;
  readonly condition: WaitCondition;
  readonly timeoutMs: number;
  /** Processes that must not be part of it any more. */
  readonly without?: readonly number[];
}

export class VmTimeoutError extends GaiaError {
  constructor(status: VmStatus, condition: string, timeoutMs: number) {
    super(
      'GAIA_TIMEOUT',
      `VM ${status.name} is ${status.protection} after ${timeoutMs / 1000} s (${status.reason}), not yet ${condition}`,
    );
  }
}

export async function waitForVm(
  { name, condition, timeoutMs, without = [] }: WaitOptions,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<VmStatus> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const status = await vmStatus(name);
    if (conditions[condition](status) && !names(status, without)) return status;
    report(status.doing ?? status.reason);
    if (performance.now() > deadline) throw new VmTimeoutError(status, condition, timeoutMs);
    await delay(pollMs, undefined, { signal }).catch(() => undefined);
  }
}

function names({ replicas }: VmStatus, pids: readonly number[]): boolean {
  // Numbers of processes mean something on their own host only.
  const here = replicas.filter(({ host }) => host === null);
  return here.some(({ status }) =>
    [status?.agentPid, status?.qemuPid].some((pid) => typeof pid === 'number' && pids.includes(pid)),
  );
}
