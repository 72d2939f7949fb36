/**
 * A QEMU that a test runs and whose serial console it reads from a file.
 * Guarantee: it is gone after `stop`, and at the end of the test process at the latest.
 */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, watch, writeFileSync } from 'node:fs';

import type { NetworkNamespace } from './network-namespace.ts';
import { qemuBinary } from './qemu-binary.ts';

export interface QemuStart {
  /** As machineArguments gives them, with `serialFile` in them. */
  readonly args: readonly string[];
  readonly serialFile: string;
  readonly namespace?: NetworkNamespace;
  /** Another QEMU than the patched one. */
  readonly binary?: string;
}

export class QemuProcess {
  readonly #child: ChildProcess;
  readonly #serialFile: string;
  readonly #killAtExit: () => void;
  #stderr = '';

  constructor(start: QemuStart) {
    this.#serialFile = start.serialFile;
    writeFileSync(start.serialFile, '');
    const command: [string, readonly string[]] = [start.binary ?? qemuBinary(), start.args];
    const [program, args] = start.namespace?.inside(...command) ?? command;
    this.#child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#killAtExit = () => void this.#child.kill('SIGKILL');
    process.once('exit', this.#killAtExit);
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('QEMU did not start');
    return this.#child.pid;
  }

  /** All that QEMU itself complained of. */
  get stderr(): string {
    return this.#stderr;
  }

  get serial(): string {
    return readFileSync(this.#serialFile, 'utf8');
  }

  /** Resolves once a whole line of the serial console holds `text`. Rejects if QEMU ends or time is up. */
  async waitForSerial(text: string, timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const finish = (error?: Error): void => {
        watcher.close();
        clearTimeout(timer);
        this.#child.off('exit', onExit);
        if (error === undefined) resolve();
        else reject(error);
      };
      const fail = (what: string): void =>
        finish(new Error(`${what} before "${text}"; console:\n${this.serial}\nQEMU:\n${this.#stderr}`));
      const check = (): void => {
        const lines = this.serial.split('\n').slice(0, -1);
        if (lines.some((line) => line.includes(text))) finish();
      };
      const onExit = (): void => fail('QEMU ended');
      const timer = setTimeout(() => fail(`${timeoutMs} ms passed`), timeoutMs);
      const watcher = watch(this.#serialFile, check);
      this.#child.once('exit', onExit);
      if (this.#ended()) onExit();
      else check();
    });
  }

  async stop(): Promise<void> {
    process.off('exit', this.#killAtExit);
    if (this.#ended()) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }

  /** Resolves when QEMU ends by itself. */
  async waitForExit(): Promise<void> {
    if (!this.#ended()) await once(this.#child, 'exit');
  }

  #ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}
