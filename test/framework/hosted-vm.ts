/**
 * A VM on hosts that share nothing: an agent in each network namespace, with a root folder of its own, run as
 * `gaia-vm agent` runs it. QEMU and images come from the machine's cache. Guarantee: `remove` leaves nothing.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { AgentEvent, ReplicaStatus, VmStatus } from '../../vmm/index.ts';
import { folders, projectFolder } from '../../vmm/index.ts';
import { askUntil } from './ask-until.ts';
import type { SeparateHosts } from './consensus/separate-hosts.ts';
import { signalReplica, type CommandResult } from './test-vm.ts';

const peerPort = 7700;
const names = ['alpha', 'beta', 'gamma'] as const;
export const guestAddress = '10.77.0.50';

/** A running `gaia-vm agent`. */
export class AgentProcess {
  readonly #child: ChildProcess;
  readonly exited: Promise<number | null>;
  /** Comes true if it ends and the test did not end it. */
  readonly failure: Promise<Error>;
  #said = '';
  #killed = false;
  #wake: () => void = () => undefined;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on('data', (data: Buffer) => {
      this.#said += data.toString();
      this.#wake();
    });
    this.exited = once(child, 'close').then(([code]) => {
      this.#wake();
      return code as number | null;
    });
    this.failure = new Promise((resolve) => {
      void this.exited.then(() => {
        if (!this.#killed) resolve(new Error(`An agent has ended: ${this.#said}`));
      });
    });
  }

  /** What it wrote to stderr. */
  get said(): string {
    return this.#said;
  }

  async until(text: string): Promise<void> {
    while (!this.#said.includes(text)) {
      if (!this.runs) throw new Error(`The agent ended without "${text}": ${this.#said}`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  get runs(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  kill(signal: NodeJS.Signals): void {
    this.#killed = true;
    this.#child.kill(signal);
  }
}

export class HostedVm {
  readonly name: string;
  readonly #hosts: SeparateHosts;
  readonly #root: string;
  readonly #image: string;
  readonly #agents = new Map<number, AgentProcess>();

  private constructor(name: string, hosts: SeparateHosts, root: string, image: string) {
    this.name = name;
    this.#image = image;
    this.#hosts = hosts;
    this.#root = root;
  }

  /** Writes the same file for all hosts; nothing is started yet. */
  static async prepare(name: string, hosts: SeparateHosts, image = 'memcached'): Promise<HostedVm> {
    const root = await mkdtemp(join(tmpdir(), 'gaia-'));
    const vm = new HostedVm(name, hosts, root, image);
    for (const host of names.keys()) {
      await mkdir(vm.root(host));
      await symlink(folders().cache, join(vm.root(host), 'cache'));
    }
    await vm.write();
    return vm;
  }

  /** The file again, with other lines and with a state folder for the standby. */
  async write(lines: readonly string[] = [], stateDir?: string): Promise<void> {
    const replicas = names.map((name, host) => {
      const more = stateDir !== undefined && host === 2 ? `, stateDir: ${stateDir}` : '';
      return `  - {name: ${name}, address: '${this.#hosts.address(host)}:${peerPort}'${more}}`;
    });
    const text = [
      ...[`name: ${this.name}`, `image: ${this.#image}`, `bridge: ${this.#hosts.bridge}`],
      ...[`address: ${guestAddress}/24`, 'replicas:', ...replicas, ...lines],
    ];
    await writeFile(this.file, `${text.join('\n')}\n`);
  }

  get file(): string {
    return join(this.#root, 'vm.yaml');
  }

  root(host: number): string {
    return join(this.#root, String(host));
  }

  /** Runs `gaia-vm agent` on a host, which finds its replica by its address. */
  start(host: number, ...words: string[]): AgentProcess {
    const agent = new AgentProcess(
      spawn(...this.#command(host, ['agent', '--config', this.file, ...words]), {
        env: { ...process.env, GAIA_ROOT: this.root(host) },
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    );
    this.#agents.set(host, agent);
    return agent;
  }

  agent(host: number): AgentProcess {
    const agent = this.#agents.get(host);
    if (agent === undefined) throw new Error(`No agent was started on host ${host}`);
    return agent;
  }

  /** Any call of the command line on a host, however it ends. */
  async command(host: number, ...words: string[]): Promise<CommandResult> {
    const [command, args] = this.#command(host, words);
    const result = await execa(command, args, { env: { GAIA_ROOT: this.root(host) }, reject: false });
    return { exitCode: result.exitCode ?? -1, stdout: result.stdout, stderr: result.stderr };
  }

  /** As this host can tell, once its agent has found out what the VM is made of. */
  async status(host: number): Promise<VmStatus> {
    await this.agent(host).until('runs replica');
    return await this.#json(host, 'status');
  }

  /** The first status on this host that `holds`; asked again until then. Throws when none does for minutes. */
  async until(host: number, holds: (status: VmStatus) => boolean): Promise<VmStatus> {
    return askUntil(async () => {
      // One that has ended may be what the asked one waits for.
      const failures = [...this.#agents.values()].map(({ failure }) => failure);
      const status = await Promise.race([this.status(host), ...failures]);
      if (status instanceof Error) throw status;
      return status;
    }, holds);
  }

  /** Its status on this host once it is PROTECTED; one process asks, which takes less of the machine than `until`. */
  async untilProtected(host: number, timeoutS: number): Promise<VmStatus> {
    const waited = this.agent(host)
      .until('runs replica')
      .then(() => this.#json(host, 'wait', '--timeout', String(timeoutS)));
    const failures = [...this.#agents.values()].map(({ failure }) => failure);
    const status = await Promise.race([waited, ...failures]);
    if (status instanceof Error) throw status;
    return status;
  }

  async events(host: number, replica: string): Promise<readonly AgentEvent[]> {
    const { stdout } = await this.command(host, 'events', this.name, '--replica', replica, '-o', 'json');
    return (JSON.parse(stdout) as { events: AgentEvent[] }).events;
  }

  /** The guest's own address on the network. */
  mac(): string {
    const plan = readFileSync(join(this.root(0), 'lib', this.name, 'vm.json'), 'utf8');
    return (JSON.parse(plan) as { guest: { mac: string } }).guest.mac;
  }

  /** All processes of a replica end at once, as when its host loses power. */
  async killHost(replica: ReplicaStatus): Promise<void> {
    const agent = this.agent(this.hostOf(replica.name));
    agent.kill('SIGKILL');
    signalReplica(replica, 'SIGKILL', 'qemu');
    await agent.exited;
  }

  /** The number of the host that a replica runs on. */
  hostOf(replica: string | null): number {
    const host = names.findIndex((name) => name === replica);
    if (host === -1) throw new Error(`VM ${this.name} has no replica ${replica ?? 'that leads'}`);
    return host;
  }

  async remove(): Promise<void> {
    for (const host of this.#agents.keys()) await this.command(host, 'stop', this.name, '--here');
    await Promise.all(
      [...this.#agents.values()].map(async (agent) => {
        if (agent.runs) agent.kill('SIGKILL');
        await agent.exited;
      }),
    );
    await rm(this.#root, { recursive: true, force: true });
  }

  async #json(host: number, command: string, ...words: string[]): Promise<VmStatus> {
    const result = await this.command(host, command, this.name, '-o', 'json', ...words);
    if (![0, 3, 4].includes(result.exitCode))
      throw new Error(`gaia-vm ${command} ended with ${result.exitCode}: ${result.stderr}`);
    return (JSON.parse(result.stdout) as { vm: VmStatus }).vm;
  }

  #command(host: number, words: readonly string[]): [string, string[]] {
    const entry = join(projectFolder(), 'dist/cli/gaia-vm.js');
    return this.#hosts.host(host).inside(process.execPath, [entry, ...words]);
  }
}
