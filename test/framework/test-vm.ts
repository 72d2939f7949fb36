/**
 * A VM of a test's own, driven by the real command line inside the test's network namespace, with folders of its
 * own; QEMU and images come from the machine's cache. Guarantee: `remove` leaves no process and no file.
 */
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { AgentEvent, ReplicaStatus, VmStatus } from '../../vmm/index.ts';
import { folders, projectFolder } from '../../vmm/index.ts';
import { askUntil } from './ask-until.ts';
import { faultyDisk } from './faulty-disk.ts';
import type { NetworkNamespace } from './network-namespace.ts';

export class TestVm {
  readonly name: string;
  readonly #namespace: NetworkNamespace;
  readonly #root: string;
  readonly #mounts: string[] = [];
  #environment: NodeJS.ProcessEnv = {};

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

  /** The first status that `holds`; asked again until then. Throws with the last one when none does for minutes. */
  async until(holds: (status: VmStatus) => boolean): Promise<VmStatus> {
    return askUntil(() => this.status(), holds);
  }

  async stop(): Promise<void> {
    await this.#gaiaVm('stop', this.name);
  }

  /** As one replica saw them. */
  async events(replica: string): Promise<readonly AgentEvent[]> {
    const text = await this.#gaiaVm('events', this.name, '--replica', replica, '-o', 'json');
    return (JSON.parse(text) as { events: AgentEvent[] }).events;
  }

  /** Asked again until `holds`. Throws with the last ones when it does not for minutes. */
  async untilEvents(replica: string, holds: (events: readonly AgentEvent[]) => boolean): Promise<void> {
    await askUntil(() => this.events(replica), holds);
  }

  /** What an agent wrote; empty when there is none. */
  log(replica: string): Promise<string> {
    return readFile(join(this.#root, 'run', this.name, replica, 'agent.log'), 'utf8').catch(() => '');
  }

  /** What a replica's guest said on its serial line and was released; empty when there is none. */
  serial(replica: string): Promise<string> {
    return readFile(join(this.#root, 'run', this.name, replica, 'serial.log'), 'utf8').catch(() => '');
  }

  /** Where its agents keep what is theirs. */
  folders(): string[] {
    return ['run', 'lib'].map((kind) => join(this.#root, kind, this.name));
  }

  /** Gives one replica, before the start, a disk of its own, of so many KiB. */
  async smallStateDisk(replica: string, kibibytes: number): Promise<SmallDisk> {
    const folder = join(this.#root, 'lib', this.name, replica);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await execa('mount', ['-t', 'tmpfs', '-o', `size=${kibibytes}k,mode=0700`, 'tmpfs', folder]);
    this.#mounts.push(folder);
    const filler = join(folder, 'filler');
    return {
      fill: () => writeFile(filler, Buffer.alloc(kibibytes << 10)).catch(() => undefined),
      free: () => rm(filler),
    };
  }

  /** Before the start: puts the replicas' state on disks that can be made slow while the VM runs. */
  async slowDisks(): Promise<SlowDisks> {
    const slowFolders = join(this.#root, 'slow-folders');
    const states = join(this.#root, 'lib', this.name);
    await writeFile(slowFolders, '');
    const { LD_PRELOAD, ...faults } = faultyDisk(this.#root, states, { slowFolders });
    const { GAIA_FAULTY_FOLDER, GAIA_SLOW_FOLDERS } = faults;
    this.#environment = { LD_PRELOAD, GAIA_FAULTY_FOLDER, GAIA_SLOW_FOLDERS };
    return {
      set: async (fdatasyncMs) => {
        const lines = Object.entries(fdatasyncMs).map(
          ([name, ms]) => `${1000 * ms} ${join(states, name)}/\n`,
        );
        await writeFile(`${slowFolders}.new`, lines.join(''));
        await rename(`${slowFolders}.new`, slowFolders);
      },
    };
  }

  async remove(): Promise<void> {
    await Promise.all(this.#mounts.splice(0).map((folder) => execa('umount', ['--lazy', folder])));
    try {
      const { vms } = JSON.parse(await this.#gaiaVm('list', '-o', 'json')) as { vms: VmStatus[] };
      if (vms.some((vm) => vm.name === this.name)) await this.stop();
    } finally {
      await rm(this.#root, { recursive: true, force: true });
    }
  }

  #vm(text: string): VmStatus {
    return (JSON.parse(text) as { vm: VmStatus }).vm;
  }

  /** What the command printed; throws unless it ended with "done", "degraded" or "no quorum". */
  async #gaiaVm(...words: string[]): Promise<string> {
    const result = await this.command(...words);
    if (![0, 3, 4].includes(result.exitCode))
      throw new Error(`gaia-vm ${words.join(' ')} ended with ${result.exitCode}: ${result.stderr}`);
    return result.stdout;
  }

  /** Any call of the command line, however it ends. */
  async command(...words: string[]): Promise<CommandResult> {
    const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');
    const [command, args] = this.#namespace.inside(process.execPath, [entry, ...words]);
    const result = await execa(command, args, {
      env: { ...this.#environment, GAIA_ROOT: this.#root },
      reject: false,
    });
    return { exitCode: result.exitCode ?? -1, stdout: result.stdout, stderr: result.stderr };
  }
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface SmallDisk {
  fill(): Promise<void>;
  free(): Promise<void>;
}

interface SlowDisks {
  /** From now on each fdatasync of these replicas' state takes so many ms more; nobody else's does. */
  set(fdatasyncMs: Readonly<Record<string, number>>): Promise<void>;
}

/** The replica that serves. */
export function leaderOf(status: VmStatus): ReplicaStatus {
  const leader = status.replicas.find((replica) => replica.name === status.leader);
  if (leader === undefined) throw new Error(`VM ${status.name} has no leader: ${status.reason}`);
  return leader;
}

/** By the replica that serves; -1: nobody knows one just now. */
export function framesServed({ leader, replicas }: VmStatus): number {
  return replicas.find(({ name }) => name === leader)?.status?.framesDelivered ?? -1;
}

/** Its comparisons or rounds found equal; -1: nobody knows of it just now. */
export function verified({ leader, replicas }: VmStatus): number {
  return replicas.find(({ name }) => name === leader)?.status?.verifications ?? -1;
}

/** The one that executes beside it. */
export function backupOf({ name, leader, replicas }: VmStatus): ReplicaStatus {
  const found = replicas.find((replica) => replica.name !== leader && replica.status?.role === 'backup');
  if (found === undefined) throw new Error(`VM ${name} has no backup`);
  return found;
}

export function replicaOf(status: VmStatus, name: string): ReplicaStatus {
  const found = status.replicas.find((replica) => replica.name === name);
  if (found === undefined) throw new Error(`VM ${status.name} has no replica ${name}`);
  return found;
}

/** Which processes of a replica: all of them are its whole host, as far as the others can tell. */
export type Part = 'host' | 'agent' | 'qemu';

function pidsOf({ status }: ReplicaStatus, part: Part): number[] {
  const agent = status?.agentPid ?? 0;
  const qemu = status?.qemuPid ?? 0;
  const pids = { host: [agent, qemu], agent: [agent], qemu: [qemu] };
  return pids[part].filter((pid) => pid !== 0);
}

export function signalReplica(replica: ReplicaStatus, signal: NodeJS.Signals, part: Part = 'host'): void {
  for (const pid of pidsOf(replica, part)) process.kill(pid, signal);
}

/** The VM is PROTECTED, and other processes have taken the place of those of `part`. */
export function hasReturned(before: VmStatus, now: VmStatus, name: string, part: Part): boolean {
  const gone = pidsOf(replicaOf(before, name), part);
  const here = pidsOf(replicaOf(now, name), part);
  return (
    now.protection === 'PROTECTED' && here.length === gone.length && here.every((pid) => !gone.includes(pid))
  );
}
