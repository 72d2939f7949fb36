/**
 * A patched QEMU whose agent is the test itself: it listens for the gaia port, claims the guest and runs it round by
 * round. Guarantees: every wait ends when QEMU does, with what QEMU printed; QEMU is gone after `remove`, and at the
 * end of the test process at the latest.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../../native/binding.ts';
import { readUint64 } from '../../vmm/core/falcon/record.ts';
import { requireQemu } from '../../vmm/io/qemu/installed.ts';
import * as layout from '../../vmm/io/qemu/layout.ts';
import { GuestPort, type RoundLimits, type Stopped } from '../../vmm/io/qemu/port.ts';
import type { RingConsumer } from '../../vmm/io/ring.ts';
import type { NetworkNamespace } from './network-namespace.ts';

const answerTimeoutUs = 20_000_000;
const exitLimitMs = 20_000;

/** The QEMU under test: the one that GAIA_QEMU names, else the installed one, which must match these sources. */
export async function portQemu(): Promise<string> {
  const named = process.env['GAIA_QEMU'];
  return named !== undefined && named !== '' ? named : (await requireQemu()).file;
}

export interface PortGuestStart {
  readonly qemu: string;
  readonly namespace: NetworkNamespace;
  /** Where socket, console and QEMU's own words go. */
  readonly folder: string;
  /** Tells guests of one folder apart; at most 40 characters. */
  readonly name: string;
  /** The machine, with a netdev `net0` in it; the console must go to `serialFile(start)`. */
  readonly args: readonly string[];
  /** More properties of the port, such as `unclaimed-ms=100`. */
  readonly portOptions?: string;
  /** Whether QEMU is told to leave the guest alone at first; so it is unless this is false. */
  readonly standing?: boolean;
  /** Of QEMU; that of the test unless given. */
  readonly environment?: NodeJS.ProcessEnv;
}

type GuestPlace = Pick<PortGuestStart, 'folder' | 'name'>;

export function serialFile({ folder, name }: GuestPlace): string {
  return join(folder, `${name}.serial`);
}

function portPath({ folder, name }: GuestPlace): string {
  return join(folder, `${name}.port`);
}

/** The command line of a QEMU that stands still until its agent runs it. */
export function portCommand(start: PortGuestStart): [string, string[]] {
  const options = start.portOptions === undefined ? '' : `,${start.portOptions}`;
  const object = `gaia-port,id=port0,path=${portPath(start)},netdev=net0${options}`;
  const still = start.standing === false ? [] : ['-S'];
  return start.namespace.inside(start.qemu, [...start.args, ...still, '-no-reboot', '-object', object]);
}

export class PortGuest {
  readonly name: string;
  readonly #place: GuestPlace;
  readonly #child: ChildProcess;
  readonly #pidFd: number;
  readonly #killAtExit: () => void;
  #port: GuestPort | undefined;
  #hold: RingConsumer | undefined;
  #outputPosition: Uint32Array | undefined;
  #virtualNs = 0;
  #rounds = 0;

  private constructor(start: PortGuestStart) {
    this.name = start.name;
    this.#place = start;
    const [command, args] = portCommand(start);
    const errors = openSync(this.#errorFile, 'w');
    this.#child = spawn(command, args, {
      stdio: ['ignore', errors, errors],
      env: start.environment ?? process.env,
    });
    closeSync(errors);
    if (this.#child.pid === undefined) throw new Error(`${start.qemu} did not start`);
    this.#pidFd = native().pidfdOpen(this.#child.pid);
    this.#killAtExit = () => void this.#child.kill('SIGKILL');
    process.once('exit', this.#killAtExit);
  }

  /** Starts QEMU and claims its guest. */
  static start(start: PortGuestStart): PortGuest {
    const listenFd = native().portListen(portPath(start));
    let guest: PortGuest | undefined;
    try {
      guest = new PortGuest(start);
      guest.#claim(guest.#greeted(guest.#accept(listenFd)));
      return guest;
    } catch (error) {
      if (guest !== undefined) guest.#child.kill('SIGKILL');
      throw error;
    } finally {
      closeSync(listenFd);
    }
  }

  get port(): GuestPort {
    if (this.#port === undefined) throw new Error(`Nobody has claimed guest ${this.name}`);
    return this.#port;
  }

  /** The area that QEMU shares, beyond what `GuestPort` makes of it. */
  get area(): ArrayBuffer {
    return this.port.dirtyBitmap.buffer as ArrayBuffer;
  }

  get virtualNs(): number {
    return this.#virtualNs;
  }

  get pid(): number {
    return this.port.qemuPid;
  }

  /** What QEMU itself printed. */
  get errors(): string {
    return readFileSync(this.#errorFile, 'utf8');
  }

  get serial(): string {
    return readFileSync(serialFile(this.#place), 'utf8');
  }

  get #errorFile(): string {
    return join(this.#place.folder, `${this.#place.name}.errors`);
  }

  // Rounds -------------------------------------------------------------------------------------------

  /** Runs to the virtual instant and returns how it ended. */
  runUntil(untilNs: number, frames: readonly Uint8Array[] = [], release = false): Stopped {
    this.begin(untilNs, frames, release);
    return this.awaitStopped();
  }

  /** As `runUntil`, for so many virtual nanoseconds. */
  runFor(ns: number, frames: readonly Uint8Array[] = [], release = false): Stopped {
    return this.runUntil(this.#virtualNs + ns, frames, release);
  }

  begin(untilNs: number, frames: readonly Uint8Array[] = [], release = false): void {
    this.beginWithin({ untilVirtualNs: untilNs }, frames, release);
  }

  /** As `begin`, with limits of any kind. */
  beginWithin(limits: RoundLimits, frames: readonly Uint8Array[] = [], release = false): void {
    const { deliver } = this.port;
    for (const frame of frames) this.give(layout.entryKind.frame, frame);
    this.port.runLimited(limits, deliver.head, ++this.#rounds, release);
  }

  runWithin(limits: RoundLimits, frames: readonly Uint8Array[] = [], release = false): Stopped {
    this.beginWithin(limits, frames, release);
    return this.awaitStopped();
  }

  /** Puts an input into the deliver ring; the next round takes it. */
  give(kind: number, payload: Uint8Array = new Uint8Array()): void {
    if (!this.port.deliver.push(kind, payload)) throw new Error('The deliver ring is full');
  }

  awaitStopped(): Stopped {
    for (;;) {
      this.#await(this.port.socketFd, 'ended a round');
      const stopped = this.takeStopped();
      if (stopped !== undefined) return stopped;
    }
  }

  /** The end of a round that QEMU has told already. */
  takeStopped(): Stopped | undefined {
    const stopped = this.port.takeStopped();
    if (stopped !== undefined) this.#virtualNs = stopped.virtualNs;
    return stopped;
  }

  /** Stops so that devices know of it; returns where the guest stands. */
  pause(): Stopped {
    const stopped = this.port.pause();
    this.#virtualNs = stopped.virtualNs;
    return stopped;
  }

  /** Runs until the console shows `text`. */
  bootUntil(text: string, virtualNsMax = 60e9): void {
    while (!this.serial.includes(text)) {
      if (this.#virtualNs > virtualNsMax)
        throw new Error(`Guest ${this.name} did not print "${text}"; console:\n${this.serial}`);
      this.runFor(20e6);
    }
  }

  /** The guest was given another one's state. */
  stateLoaded(virtualNs: number): void {
    this.#virtualNs = virtualNs;
  }

  // Frames -------------------------------------------------------------------------------------------

  /** Frames that came from the tap. */
  takeIngress(): Uint8Array[] {
    return framesOf(this.port.ingress);
  }

  /** Frames that the guest sent since the last call, whatever became of them. */
  takeOutput(): Uint8Array[] {
    this.#passOverwritten();
    if (this.#hold === undefined) throw new Error(`Nobody has claimed guest ${this.name}`);
    return framesOf(this.#hold);
  }

  /** A hold ring that was emptied began again at its start, and has passed the place where this reader stood. */
  #passOverwritten(): void {
    const capacity = this.#hold?.data.length ?? 1;
    const position = this.#outputPosition?.[0] ?? 0;
    const { head } = this.held;
    const [from, to] = [position % capacity, head % capacity];
    if (head - to === position - from || to <= from) return;
    this.#outputPosition = Uint32Array.of(head - to);
    this.#hold = this.port.readHeld(this.#outputPosition);
  }

  /** Positions of the hold ring. */
  get held(): { readonly head: number; readonly tail: number } {
    const words = this.#ringWords(layout.ringIndex.hold);
    return { head: words[layout.ringOffset.head / 4] ?? 0, tail: words[layout.ringOffset.tail / 4] ?? 0 };
  }

  /** First byte of the deliver ring that the guest has not taken. */
  get deliverTail(): number {
    return this.#ringWords(layout.ringIndex.deliver)[layout.ringOffset.tail / 4] ?? 0;
  }

  #ringWords(index: number): Uint32Array {
    return new Uint32Array(this.area, this.#ringAt(index), layout.ringHeaderBytes / 4);
  }

  #ringAt(index: number): number {
    return readUint64(new DataView(this.area), layout.areaOffset.ringOffset + 8 * index);
  }

  // Agents that come and go --------------------------------------------------------------------------

  /** The agent dies: its socket closes, and what it mapped is gone. */
  hangUp(): void {
    this.port.close();
  }

  /** A new agent listens at the same place: resolves when QEMU's greeting is there, before anything is asked. */
  greetAgain(): GuestPort {
    const listenFd = native().portListen(portPath(this.#place));
    try {
      return this.#greeted(this.#accept(listenFd));
    } finally {
      closeSync(listenFd);
    }
  }

  #greeted(socketFd: number): GuestPort {
    try {
      this.#port = new GuestPort(socketFd);
      // QEMU's area outlives its agents: what the guest sent to an earlier one is still to be read.
      this.#outputPosition ??= Uint32Array.of(this.held.head);
      this.#hold = this.#port.readHeld(this.#outputPosition);
      return this.#port;
    } catch (error) {
      closeSync(socketFd);
      throw error;
    }
  }

  /** The new agent claims the guest. */
  claimAgain(port = this.greetAgain()): void {
    this.#claim(port);
    this.#virtualNs = port.pause().virtualNs;
  }

  #accept(listenFd: number): number {
    this.#await(listenFd, 'connected');
    return native().portAccept(listenFd);
  }

  #claim(port: GuestPort): void {
    port.welcome();
  }

  #await(fd: number, what: string): void {
    const ready = new Uint8Array(2);
    if (native().waitReadable(Int32Array.of(fd, this.#pidFd), ready, answerTimeoutUs) === 0)
      throw new Error(`Guest ${this.name} has not ${what} for 20 s; QEMU: ${this.errors}`);
    if (ready[0] === 0) throw new Error(`QEMU of guest ${this.name} ended before it ${what}: ${this.errors}`);
  }

  // The end ------------------------------------------------------------------------------------------

  /** Resolves with QEMU's exit code when it ends by itself, null after a signal; rejects if it does not end. */
  async exitCode(): Promise<number | null> {
    if (!this.#ended) await once(this.#child, 'exit', { signal: AbortSignal.timeout(exitLimitMs) });
    return this.#child.exitCode;
  }

  get #ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async remove(): Promise<void> {
    process.off('exit', this.#killAtExit);
    this.#child.kill('SIGKILL');
    if (!this.#ended) await once(this.#child, 'exit');
    closeSync(this.#pidFd);
    rmSync(portPath(this.#place), { force: true });
  }
}

function framesOf(ring: RingConsumer): Uint8Array[] {
  const frames: Uint8Array[] = [];
  while (ring.next()) {
    frames.push(ring.copy());
    ring.consume();
  }
  return frames;
}
