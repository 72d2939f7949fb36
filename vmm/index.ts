/** The public face of vmm/: all that cli/ and programs that embed gaia-vm may use. */

export { BrokenEnvironmentError, GaiaError } from './core/errors.ts';
export type { AgentStatus } from './agent-status.ts';
export type { AgentEvent } from './event-log.ts';
export type { ExchangeFigures } from './guest/guest-driver.ts';
export { folders, type Folders } from './io/folders.ts';
export { checkMachine, type CheckLine, type Verdict } from './io/machine-check.ts';
export { gaiaVersion, projectFolder, selfCommand } from './io/project-folder.ts';
export { buildQemu, expectedBuildId, type BuildProgress } from './io/qemu/build.ts';
export { installedBuilds, requireQemu, type InstalledQemu } from './io/qemu/installed.ts';
export { configureFlags } from './io/qemu/recipe.ts';
export type { OperatorNetwork } from './operator-network.ts';
export { drillVm, type DrillReport, type DrillTarget } from './drill.ts';
export { runHostedReplica } from './hosted-replica.ts';
export type { HostOptions, ReplicaPlace } from './host-options.ts';
export { logSources, readLogs, type LogLine, type LogSource } from './vm-logs.ts';
export { failOver, stopVm, vmEvents, vmNames } from './vm-manager.ts';
export {
  restartVm,
  startVm,
  StartTimeoutError,
  vmHasEnded,
  type GuestImage,
  type StartOptions,
} from './vm-start.ts';
export { vmStatus, type ReplicaStatus, type VmStatus } from './vm-status.ts';
export { VmTimeoutError, waitConditions, waitForVm, type WaitCondition } from './vm-wait.ts';
