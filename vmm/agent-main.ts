/** Entry point of an agent process: `agent-main.js VM REPLICA`. */
import { appendFileSync } from 'node:fs';
import { Agent } from './agent.ts';
import { readVmPlan, replicaFiles } from './vm-plan.ts';

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
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  appendFileSync(replicaFiles(vm, name).agentLogFile, `${new Date().toISOString()} failed: ${text}\n`);
  process.exit(1);
}
