/**
 * Starts an agent as a process of its own, in its own session: it stays when the terminal or the agent that started
 * it goes. Two of the same replica never run: the second one finds the first one's lock and ends.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { processRuns, readPid } from './io/process.ts';
import { projectFolder } from './io/project-folder.ts';
import { replicaFiles } from './vm-plan.ts';

const entryName = 'agent-main.js';
/** What an agent's command line holds: one of its own, or that of `gaia-vm agent`. */
export const agentMark = /agent-main\.js |gaia-vm(\.js)? agent /;

export function startAgent(vm: string, replica: string): void {
  const files = replicaFiles(vm, replica);
  mkdirSync(files.runFolder, { recursive: true, mode: 0o700 });
  mkdirSync(files.stateFolder, { recursive: true, mode: 0o700 });
  const log = openSync(files.agentLogFile, 'a', 0o600);
  const entry = join(projectFolder(), 'dist/vmm', entryName);
  const child = spawn(process.execPath, [entry, vm, replica], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  child.unref();
}

/** Its process is there; it may be frozen. */
export function agentRuns(vm: string, replica: string): boolean {
  return processRuns(readPid(replicaFiles(vm, replica).agentPidFile), agentMark);
}
