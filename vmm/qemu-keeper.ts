/**
 * Keeps one replica's QEMU running: ends what an earlier agent left, starts it, and starts another one when it has
 * ended, later each time. Guarantee: there is never more than one QEMU of a replica that this agent knows of.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { Backoff, type BackoffTimes } from './core/backoff.ts';
import type { EngineEvent } from './engine-protocol.ts';
import { endProcess, readPid } from './io/process.ts';
import { confinedCommand, sandboxArguments } from './io/qemu/confinement.ts';
import { heldConsole, machineArguments } from './io/qemu/profile.ts';
import { qemuMark, replicaFiles, type ReplicaPlan, type VmPlan } from './vm-plan.ts';

/** QEMU's file descriptor of the tap: the first behind stdin, stdout and stderr. */
const qemuTapFd = 3;
const restartTimes: BackoffTimes = { firstMs: 100, maxMs: 30_000, soundAfterMs: 60_000 };

export interface QemuKeeperFace {
  event(event: EngineEvent): void;
}

export class QemuKeeper {
  readonly #plan: VmPlan;
  readonly #replica: ReplicaPlan;
  readonly #files: ReturnType<typeof replicaFiles>;
  readonly #tapFd: number;
  readonly #face: QemuKeeperFace;
  readonly #backoff = new Backoff(restartTimes);
  #child: ChildProcess | undefined;
  #restart: NodeJS.Timeout | undefined;
  #startedNs = 0n;
  #ended = false;

  constructor(plan: VmPlan, replica: ReplicaPlan, tapFd: number, face: QemuKeeperFace) {
    this.#plan = plan;
    this.#replica = replica;
    this.#files = replicaFiles(plan.name, replica.name);
    this.#tapFd = tapFd;
    this.#face = face;
  }

  /** How often it was started since one has lasted. */
  get starts(): number {
    return this.#backoff.attempts;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  start(): void {
    this.#keepSerial();
    const log = openSync(this.#files.qemuLogFile, 'a', 0o600);
    this.#startedNs = process.hrtime.bigint();
    const child = spawn(...this.#command(), { stdio: ['ignore', log, log, this.#tapFd] });
    closeSync(log);
    this.#child = child;
    this.#backoff.started(performance.now());
    writeFileSync(this.#files.qemuPidFile, `${child.pid ?? 0}\n`, { mode: 0o600 });
    child.on('error', (error) => {
      this.#face.event({ name: 'qemu-failed', text: error.message, data: {} });
    });
    child.on('exit', (code, signal) => {
      this.#face.event({
        name: 'qemu-ended',
        text: `QEMU ended with ${signal ?? `exit code ${code ?? -1}`}${this.#lastWords()}`,
        data: {},
      });
      this.#child = undefined;
      this.#startAgain();
    });
  }

  /**
   * The engine has lost the guest that it took up then: whatever is left of its QEMU is of no use. A QEMU that was
   * started since is another one, and stays.
   */
  lost(attachedNs: bigint): void {
    if (this.#startedNs < attachedNs) this.#child?.kill('SIGKILL');
  }

  /** From now on nothing is started. QEMU itself is ended by the engine, or by whoever ends the agent. */
  end(): void {
    this.#ended = true;
    clearTimeout(this.#restart);
  }

  /** Resolves once its process has ended; one that takes longer is killed. */
  async gone(patienceMs: number): Promise<void> {
    const child = this.#child;
    if (child?.pid === undefined) return;
    const exited = once(child, 'exit');
    const impatient = setTimeout(() => child.kill('SIGKILL'), patienceMs);
    await exited;
    clearTimeout(impatient);
  }

  #startAgain(): void {
    if (this.#ended) return;
    const waitMs = this.#backoff.waitMs(performance.now());
    this.#restart = setTimeout(() => this.start(), waitMs);
  }

  #command(): [string, string[]] {
    const { guest, qemu, uid } = this.#plan;
    const { rootFolder, serialFile, portSocket } = this.#files;
    mkdirSync(rootFolder, { recursive: true, mode: 0o700 });
    closeSync(openSync(serialFile, 'a', 0o600));
    const readable = [guest.kernel, guest.initrd].filter((file) => file !== null);
    const devices = guest.accelerator === 'kvm' ? ['/dev/kvm'] : [];
    const confinement = { uid, rootFolder, readable, writable: [serialFile, portSocket], devices };
    return confinedCommand(confinement, qemu, [...this.#arguments(), ...sandboxArguments]);
  }

  #arguments(): string[] {
    const { guest, mode, network, name } = this.#plan;
    const [hostAddress = ''] = network.hostAddress.split('/');
    return [
      ...machineArguments({
        machine: guest.machine,
        lockstep: mode === 'lockstep',
        accelerator: guest.accelerator,
        memoryBytes: guest.memoryBytes,
        vcpus: guest.vcpus,
        kernel: guest.kernel,
        initrd: guest.initrd,
        appendExtra: [...guest.kernelArguments, `gaia.ip=${network.guestAddress}`, `gaia.gw=${hostAddress}`],
        mac: guest.mac,
        tapFd: qemuTapFd,
        rtcBase: guest.rtcBase,
        heldSerialFile: this.#files.serialFile,
      }),
      '-S',
      '-no-reboot',
      ...['-name', qemuMark(name, this.#replica.name)],
      ...['-object', `gaia-port,id=port0,path=${this.#files.portSocket},netdev=net0,console=${heldConsole}`],
    ];
  }

  /** What the guest before this one wrote is kept once. */
  #keepSerial(): void {
    const { serialFile, earlierSerialFile } = this.#files;
    if (existsSync(serialFile)) renameSync(serialFile, earlierSerialFile);
  }

  /** The last line that it wrote says why, where it ended by itself. */
  #lastWords(): string {
    const last = readFileSync(this.#files.qemuLogFile, 'utf8').trimEnd().split('\n').at(-1) ?? '';
    return last === '' ? '' : `: ${last}`;
  }
}

/** What an agent before this one left running: its guest stands, and nobody can tell what state it is in. */
export async function endOrphan(vm: string, replica: string): Promise<boolean> {
  const files = replicaFiles(vm, replica);
  const ended = await endProcess(readPid(files.qemuPidFile), qemuMark(vm, replica), 0);
  rmSync(files.qemuPidFile, { force: true });
  return ended;
}
