/**
 * A load generator of Debian's as a load program:
 *
 *   node dist/test/framework/command-load.js COMMAND ARGUMENT...
 *
 * The command must run until it is interrupted; one that ends by itself is an error. Prints "serving" after its first
 * output; when stdin ends, interrupts the command and prints a `CommandReport`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** What the command did. */
export interface CommandReport {
  /** Everything it printed, errors included. */
  readonly output: string;
  /** It ended before it was told to, with this code or signal. */
  readonly endedEarly: string | null;
}

const [command = '', ...args] = process.argv.slice(2);
const child = spawn('stdbuf', ['-oL', command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
const output: Buffer[] = [];
let endedEarly: string | null = null;
let stopping = false;
for (const stream of [child.stdout, child.stderr]) {
  stream.on('data', (chunk: Buffer) => {
    if (output.length === 0) process.stdout.write('serving\n');
    output.push(chunk);
  });
}
const closed = once(child, 'close').then(([code, signal]) => {
  if (!stopping) endedEarly = String(signal ?? code);
});
process.stdin.resume();
await once(process.stdin, 'end');
stopping = true;
child.kill('SIGINT');
await closed;
const report: CommandReport = { output: Buffer.concat(output).toString(), endedEarly };
process.stdout.write(`${JSON.stringify(report)}\n`);
