/** A load program that runs inside a network namespace and reports when it is told to stop. */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { projectFolder } from '../../vmm/io/project-folder.ts';
import type { NetworkNamespace } from './network-namespace.ts';

export class LoadProcess<Report> {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  readonly #interface: Interface;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    this.#interface = createInterface({ input: child.stdout });
    this.#lines = this.#interface[Symbol.asyncIterator]();
  }

  /** Starts `dist/test/framework/PROGRAM`. */
  static begin<Report>(
    namespace: NetworkNamespace,
    program: string,
    programArguments: readonly string[],
  ): LoadProcess<Report> {
    const file = join(projectFolder(), 'dist/test/framework', program);
    const [command, args] = namespace.inside(process.execPath, [file, ...programArguments]);
    return new LoadProcess<Report>(spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /** Starts it and waits until every client has had a reply. */
  static async start<Report>(
    namespace: NetworkNamespace,
    program: string,
    programArguments: readonly string[],
  ): Promise<LoadProcess<Report>> {
    const load = LoadProcess.begin<Report>(namespace, program, programArguments);
    await load.serving();
    return load;
  }

  /** Resolves once every client has had a reply. */
  async serving(): Promise<void> {
    const first = await this.#lines.next();
    if (first.value !== 'serving')
      throw new Error(`The load program did not come to serve: ${String(first.value)}`);
  }

  /** Lets the operations under way end, and returns what the clients saw. */
  async stop(): Promise<Report> {
    this.#child.stdin.end();
    const line = await this.#lines.next();
    this.#interface.close();
    return JSON.parse(line.value as string) as Report;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
