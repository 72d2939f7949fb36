/** What the parts of a VM wrote to their files. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { GaiaError } from './core/errors.ts';
import { addressOf } from './remote-replicas.ts';
import { isLocal, localReplicas, readVmPlan, replicaFiles } from './vm-plan.ts';

/** The newest part of a file that is read at most. */
const bytesMax = 1 << 20;

export const logSources = ['agent', 'qemu', 'serial'] as const;
export type LogSource = (typeof logSources)[number];

export interface LogLine {
  readonly replica: string;
  readonly text: string;
}

export interface LogsRead {
  /** In the order of their time stamps where they have one. */
  readonly lines: readonly LogLine[];
  /** By replica: how far its file was read. */
  readonly positions: ReadonlyMap<string, number>;
}

/** `from`: goes on where an earlier reading ended. */
export function readLogs(
  wanted: { readonly vm: string; readonly replica: string | undefined; readonly source: LogSource },
  from: ReadonlyMap<string, number> = new Map(),
): LogsRead {
  const { vm, replica, source } = wanted;
  const plan = readVmPlan(vm);
  const names = plan.replicas.map(({ name }) => name);
  if (replica !== undefined && !names.includes(replica))
    throw new GaiaError(
      'GAIA_REPLICA_UNKNOWN',
      `VM ${vm} has no replica "${replica}": see "gaia-vm status ${vm}"`,
    );
  if (replica !== undefined && !isLocal(plan, replica))
    throw new GaiaError(
      'GAIA_LOGS_ELSEWHERE',
      `Replica ${replica} of VM ${vm} runs on another host (${addressOf(plan, replica).host}): its logs are there`,
    );
  const here = localReplicas(plan).map(({ name }) => name);
  const lines: LogLine[] = [];
  const positions = new Map<string, number>();
  for (const name of replica === undefined ? here : [replica]) {
    const files = replicaFiles(vm, name);
    const file = { agent: files.agentLogFile, qemu: files.qemuLogFile, serial: files.serialFile }[source];
    const read = readWholeLines(file, from.get(name) ?? 0);
    positions.set(name, read.end);
    lines.push(...read.lines.map((text) => ({ replica: name, text })));
  }
  if (source === 'agent') lines.sort((a, b) => timeOf(a).localeCompare(timeOf(b)));
  return { lines, positions };
}

function timeOf({ text }: LogLine): string {
  return /^\d{4}-\d\d-\d\dT[\d:.]+Z/.exec(text)?.[0] ?? '';
}

/** From `start`, or from the beginning of a file that has become shorter; a line still being written waits. */
function readWholeLines(file: string, start: number): { readonly lines: string[]; readonly end: number } {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch {
    return { lines: [], end: 0 }; // A standby has no QEMU; an agent that just begins has no log.
  }
  try {
    const { size } = fstatSync(fd);
    const begin = Math.max(size < start ? 0 : start, size - bytesMax);
    const bytes = Buffer.alloc(size - begin);
    const text = bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, begin)).toString();
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    const lines = whole.split('\n').slice(0, -1);
    return { lines: lines.map((line) => line.replace(/\r$/, '')), end: begin + Buffer.byteLength(whole) };
  } finally {
    closeSync(fd);
  }
}
