/**
 * A VM of a test's own, driven by the real command line inside the test's network namespace, with folders of its
 * own; QEMU and images come from the machine's cache. Guarantee: `remove` leaves no process and no file.
 */
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { ReplicaStatus, VmStatus } from '../../vmm/index.ts';
import { folders, projectFolder } from '../../vmm/index.ts';
import type { NetworkNamespace } from './network-namespace.ts';

export class TestVm {
  readonly name: string;
  readonly #namespace: NetworkNamespace;
  readonly #root: string;

  private constructor(name: string, namespace: NetworkNamespace, root: string) {
    this.name = name;
    this.#namespace = namespace;
    this.#root = root;
  }

  /** Nothing is started yet. */
  static async prepare(name: string, namespace: NetworkNamespace): Promise<TestVm> {
    const root = await mkdtemp(join(tmpdir(), 'gaia-'));
    await symlink(folders().cache, join(root, 'cache'));
    return new TestVm(name, namespace, root);
  }

  async start(...options: string[]): Promise<VmStatus> {
    return this.#vm(await this.#gaiaVm('start', '--name', this.name, '-o', 'json', ...options));
  }

  async status(): Promise<VmStatus> {
    return this.#vm(await this.#gaiaVm('status', this.name, '-o', 'json'));
  }

  /** The first status that `holds`; asked again until then. */
  async until(holds: (status: VmStatus) => boolean): Promise<VmStatus> {
    for (;;) {
      const status = await this.status();
      if (holds(status)) return status;
    }
  }

  async stop(): Promise<void> {
    await this.#gaiaVm('stop', this.name);
  }

  async remove(): Promise<void> {
    const { vms } = JSON.parse(await this.#gaiaVm('list', '-o', 'json')) as { vms: VmStatus[] };
    if (vms.some((vm) => vm.name === this.name)) await this.stop();
    await rm(this.#root, { recursive: true, force: true });
  }

  #vm(text: string): VmStatus {
    return (JSON.parse(text) as { vm: VmStatus }).vm;
  }

  /** What the command printed; throws unless it ended with "done" or "degraded". */
  async #gaiaVm(...words: string[]): Promise<string> {
    const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');
    const [command, args] = this.#namespace.inside(process.execPath, [entry, ...words]);
    const result = await execa(command, args, { env: { GAIA_ROOT: this.#root }, reject: false });
    if (result.exitCode !== 0 && result.exitCode !== 3)
      throw new Error(`gaia-vm ${words.join(' ')} ended with ${result.exitCode ?? -1}: ${result.stderr}`);
    return result.stdout;
  }
}

/** The replica that serves. */
export function leaderOf(status: VmStatus): ReplicaStatus {
  const leader = status.replicas.find((replica) => replica.name === status.leader);
  if (leader === undefined) throw new Error(`VM ${status.name} has no leader: ${status.reason}`);
  return leader;
}

/** A signal to every process of one replica: to its whole host, as far as the others can tell. */
export function signalReplica(replica: ReplicaStatus, signal: NodeJS.Signals): void {
  for (const pid of [replica.status?.agentPid, replica.status?.qemuPid]) {
    if (pid !== undefined && pid !== null) process.kill(pid, signal);
  }
}
