/** The public face of vmm/: all that cli/ and programs that embed gaia-vm may use. */

export { BrokenEnvironmentError, GaiaError } from './core/errors.ts';
export type { AgentEvent, AgentStatus } from './agent.ts';
export { folders, type Folders } from './io/folders.ts';
export { checkMachine, type CheckLine, type Verdict } from './io/machine-check.ts';
export { gaiaVersion, projectFolder, selfCommand } from './io/project-folder.ts';
export { buildQemu, expectedBuildId, type BuildProgress } from './io/qemu/build.ts';
export { installedBuilds, requireQemu, type InstalledQemu } from './io/qemu/installed.ts';
export { configureFlags } from './io/qemu/recipe.ts';
export {
  startVm,
  stopVm,
  vmEvents,
  vmNames,
  vmStatus,
  StartTimeoutError,
  type GuestImage,
  type ReplicaStatus,
  type StartOptions,
  type VmStatus,
} from './vm-manager.ts';
