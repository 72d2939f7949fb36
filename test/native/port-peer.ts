/** A folder with port sockets and the program that plays QEMU at their other end (port-peer.c). */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeBinding } from '../../native/binding.ts';
import { plainEnvironment } from './addon.ts';

export class PortFolder {
  readonly path: string;
  /** The compiled port-peer.c. */
  readonly program: string;

  constructor() {
    this.path = mkdtempSync(join(tmpdir(), 'gaia-port-'));
    this.program = join(this.path, 'port-peer');
    const source = join(import.meta.dirname, 'port-peer.c');
    const warnings = ['-Wall', '-Wextra', '-Werror'];
    execFileSync('gcc', [...warnings, '-o', this.program, source], { env: plainEnvironment });
  }

  remove(): void {
    rmSync(this.path, { recursive: true });
  }

  socketPath(name: string): string {
    return join(this.path, name);
  }

  /** Lets a peer do `actions` and exit. What it sent and left behind can be accepted and received afterwards. */
  run(name: string, actions: readonly string[]): void {
    const options = { env: plainEnvironment, encoding: 'utf8' } as const;
    const ended = spawnSync(this.program, [this.socketPath(name), ...actions], options);
    if (ended.status !== 0) throw new Error(`The peer failed: ${ended.stderr}`);
  }

  /** Starts a peer that lives beside the test; the test sees to its end. */
  start(name: string, actions: readonly string[]): ChildProcess {
    return spawn(this.program, [this.socketPath(name), ...actions], {
      env: plainEnvironment,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }
}

/** Blocks until `fd` is readable, a minute at most. */
export function awaitReadable(addon: NativeBinding, fd: number): void {
  const count = addon.waitReadable(Int32Array.of(fd), new Uint8Array(1), 60_000_000);
  if (count !== 1) throw new Error(`Descriptor ${fd} did not become readable within 60 s`);
}
