/** Entry point of an agent process: `agent-main.js VM REPLICA`. */
import { appendFileSync } from 'node:fs';
import { Agent } from './agent.ts';
import { explainError } from './core/errors.ts';
import { readVmPlan, replicaFiles } from './vm-plan.ts';

process.umask(0o077);
const [vm = '', name = ''] = process.argv.slice(2);
const plan = readVmPlan(vm);
const replica = plan.replicas.find((candidate) => candidate.name === name);
if (replica === undefined) {
  process.stderr.write(`VM ${vm} has no replica ${name}\n`);
  process.exit(2);
}
try {
  await new Agent(plan, replica).run();
  process.exit(0);
} catch (error) {
  appendFileSync(
    replicaFiles(vm, name).agentLogFile,
    `${new Date().toISOString()} failed: ${explain(error)}\n`,
  );
  process.exit(1);
}

function explain(error: unknown): string {
  if (error instanceof Error && 'code' in error && error.code === 'ENOSPC')
    return `No space is left for ${replicaFiles(vm, name).stateFolder}: free some, the agent is started again by itself`;
  return explainError(error);
}
