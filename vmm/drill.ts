/** Rehearses a failure: kills a replica for real, and tells what clients saw and how long protection was gone. */
import { setTimeout as delay } from 'node:timers/promises';
import { GaiaError } from './core/errors.ts';
import { ServiceProbe, type ProbeReport } from './service-probe.ts';
import { waitForVm } from './vm-wait.ts';
import { vmStatus, type ReplicaStatus, type VmStatus } from './vm-status.ts';

const connections = 4;
/** Clients are served for this long before and after, so that a figure means something. */
const settleMs = 1000;

export type DrillTarget = 'leader' | 'backup' | 'standby';

export interface DrillOptions {
  readonly name: string;
  readonly kill: DrillTarget;
  /** Also where the VM is not PROTECTED, and the drill may end the service. */
  readonly force: boolean;
  readonly timeoutMs: number;
}

export interface DrillReport {
  readonly vm: string;
  readonly killed: string;
  readonly role: DrillTarget;
  readonly pids: readonly number[];
  readonly leaderBefore: string | null;
  readonly leaderAfter: string | null;
  readonly termAfter: number;
  /** From the kill until the VM was PROTECTED again. */
  readonly unprotectedMs: number;
  readonly clients: ProbeReport;
}

export async function drillVm(
  { name, kill, force, timeoutMs }: DrillOptions,
  report: (text: string) => void,
  signal?: AbortSignal,
): Promise<DrillReport> {
  const before = await vmStatus(name);
  if (before.protection !== 'PROTECTED' && !force)
    throw new GaiaError(
      'GAIA_DRILL_UNPROTECTED',
      `VM ${name} is ${before.protection}, and a drill could end its service: wait until it is PROTECTED, or give --force`,
    );
  if (before.port === null)
    throw new GaiaError('GAIA_DRILL_PORT', `VM ${name} names no port of a service that could be watched`);
  const target = targetOf(before, kill);
  if (target.host !== null)
    throw new GaiaError(
      'GAIA_DRILL_HOST',
      `The ${kill} of VM ${name} is ${target.name} on host ${target.host}: run the drill there`,
    );
  const pids = [target.status?.agentPid, target.status?.qemuPid].filter(
    (pid): pid is number => typeof pid === 'number',
  );
  report('connecting to the service');
  const probe = await ServiceProbe.open(before.image, before.address, before.port, connections);
  try {
    await settle(signal);
    report(`killing ${target.name}`);
    const killedMs = performance.now();
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    const after = await waitForVm({ name, condition: 'protected', timeoutMs, without: pids }, report, signal);
    const unprotectedMs = performance.now() - killedMs;
    await settle(signal);
    return {
      vm: name,
      killed: target.name,
      role: kill,
      pids,
      leaderBefore: before.leader,
      leaderAfter: after.leader,
      termAfter: after.term,
      unprotectedMs: Math.round(unprotectedMs),
      clients: await probe.stop(settleMs),
    };
  } catch (error) {
    await probe.stop(0);
    throw error;
  }
}

async function settle(signal?: AbortSignal): Promise<void> {
  await delay(settleMs, undefined, { signal }).catch(() => undefined);
  signal?.throwIfAborted();
}

function targetOf(status: VmStatus, kill: DrillTarget): ReplicaStatus {
  const found = status.replicas.find((replica) =>
    kill === 'leader' ? replica.name === status.leader : replica.status?.role === kill,
  );
  if (found === undefined)
    throw new GaiaError('GAIA_DRILL_TARGET', `VM ${status.name} has no ${kill} now: see "gaia-vm status"`);
  return found;
}
