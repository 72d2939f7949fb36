import { spawn, spawnSync } from 'node:child_process';
import { closeSync, readSync } from 'node:fs';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, onTestFinished } from 'vitest';
import { addonFile, failureOf, loadAddon, plainEnvironment } from './addon.ts';
import { PortFolder } from './port-peer.ts';

const addon = loadAddon();
const limitUs = 60_000_000;

function createdPipe(): [number, number] {
  const [readFd, writeFd] = addon.pipeCreate();
  onTestFinished(() => {
    closeSync(readFd);
    closeSync(writeFd);
  });
  return [readFd, writeFd];
}

/** One waiting call: how many were ready, and which. */
function waited(fds: readonly number[], timeoutUs: number): { count: number; ready: number[] } {
  const ready = new Uint8Array(fds.length).fill(9);
  const count = addon.waitReadable(Int32Array.from(fds), ready, timeoutUs);
  return { count, ready: [...ready] };
}

/** System call 271 on x86-64 is ppoll: the shell goes on once this process waits in it. */
const untilWaiting = `until read number rest < /proc/${process.pid}/syscall && [ "$number" = 271 ]; do :; done`;

/** Whether a child may see what this process waits for; where not, the tests of signals are skipped in sight. */
const seesWaits =
  process.arch === 'x64' &&
  spawnSync('sh', ['-c', `read line < /proc/${process.pid}/syscall`], { env: plainEnvironment }).status === 0;

describe('a doorbell pipe', () => {
  it('makes exactly the rung ends readable, until it is drained', () => {
    const [quietRead] = createdPipe();
    const [readFd, writeFd] = createdPipe();
    expect(waited([quietRead, readFd], 0)).toEqual({ count: 0, ready: [0, 0] });
    addon.ring(writeFd, 'pipe');
    expect(waited([quietRead, readFd], limitUs)).toEqual({ count: 1, ready: [0, 1] });
    expect(waited([readFd, quietRead, readFd], -1)).toEqual({ count: 2, ready: [1, 0, 1] });
    addon.drain(readFd);
    addon.drain(readFd);
    expect(waited([quietRead, readFd], 0)).toEqual({ count: 0, ready: [0, 0] });
  });

  it('takes more rings than it has room for, and one drain empties it', () => {
    const [readFd, writeFd] = createdPipe();
    for (let i = 0; i < 70_000; i += 1) addon.ring(writeFd, 'pipe');
    addon.drain(readFd);
    expect(waited([readFd], 0).count).toBe(0);
  });

  it('is inherited by no other program', () => {
    const [readFd, writeFd] = createdPipe();
    const listing = spawnSync('ls', ['/proc/self/fd'], { encoding: 'utf8', env: plainEnvironment });
    expect(listing.stdout.split('\n')).not.toContain(String(readFd));
    expect(listing.stdout.split('\n')).not.toContain(String(writeFd));
  });

  it('is readable when its other end has hung up, and draining it returns', () => {
    const [readFd, writeFd] = addon.pipeCreate();
    onTestFinished(() => closeSync(readFd));
    closeSync(writeFd);
    expect(waited([readFd], limitUs)).toEqual({ count: 1, ready: [1] });
    addon.drain(readFd);
  });

  it('says EPIPE when nobody can hear it', () => {
    const [readFd, writeFd] = addon.pipeCreate();
    onTestFinished(() => closeSync(writeFd));
    closeSync(readFd);
    expect(failureOf(() => addon.ring(writeFd, 'pipe'))).toMatchObject({ code: 'EPIPE', syscall: 'write' });
  });
});

describe('an eventfd from another process', () => {
  /** The eventfd that a peer passed. */
  function passedEventfd(kind: 'plain' | 'full'): number {
    const folder = new PortFolder();
    onTestFinished(() => folder.remove());
    const listenFd = addon.portListen(folder.socketPath('port'));
    folder.run('port', ['eventfd', kind]);
    const connection = addon.portAccept(listenFd);
    const fd = addon.portReceive(connection, new Uint8Array(8))?.fds[0];
    closeSync(connection);
    closeSync(listenFd);
    if (fd === undefined) throw new Error('The peer passed no eventfd');
    onTestFinished(() => closeSync(fd));
    return fd;
  }

  it('is readable from its first ring to its drain, which does not block although its reads do', () => {
    const fd = passedEventfd('plain');
    addon.drain(fd);
    expect(waited([fd], 0).count).toBe(0);
    addon.ring(fd, 'eventfd');
    addon.ring(fd, 'eventfd');
    expect(waited([fd], limitUs)).toEqual({ count: 1, ready: [1] });
    const rings = Buffer.alloc(8);
    readSync(fd, rings);
    expect(rings.readBigUInt64LE()).toBe(2n);
    addon.ring(fd, 'eventfd');
    addon.drain(fd);
    expect(waited([fd], 0).count).toBe(0);
  });

  it('that has no room for another ring stays rung', () => {
    const fd = passedEventfd('full');
    addon.ring(fd, 'eventfd');
    expect(waited([fd], limitUs).count).toBe(1);
    addon.drain(fd);
    expect(waited([fd], 0).count).toBe(0);
  });

  it('refuses the single byte of a pipe', () => {
    expect(failureOf(() => addon.ring(passedEventfd('plain'), 'pipe')).code).toBe('EINVAL');
  });
});

describe('a wait', () => {
  it('lasts as long as its limit says when nothing is ready', () => {
    const [readFd] = createdPipe();
    const startNs = process.hrtime.bigint();
    expect(waited([readFd], 50_000).count).toBe(0);
    expect(Number(process.hrtime.bigint() - startNs)).toBeGreaterThanOrEqual(50_000_000);
    expect(waited([], 1_000).count).toBe(0);
  });

  it('takes fractions of a microsecond', () => {
    const [readFd] = createdPipe();
    expect(waited([readFd], 0.25).count).toBe(0);
  });

  it('ends when another thread rings, while the event loop of this one stands still', async () => {
    const [readFd, writeFd] = createdPipe();
    const code = `const { workerData } = require('node:worker_threads');
      require(workerData.file).ring(workerData.writeFd, 'pipe');`;
    const worker = new Worker(code, { eval: true, workerData: { file: addonFile(), writeFd } });
    expect(waited([readFd], -1)).toEqual({ count: 1, ready: [1] });
    await once(worker, 'exit');
  });

  it.runIf(seesWaits)('is not ended by a signal, with and without a limit', async () => {
    const [readFd, writeFd] = createdPipe();
    let signals = 0;
    const count = (): void => {
      signals += 1;
    };
    process.on('SIGUSR2', count);
    onTestFinished(() => {
      process.off('SIGUSR2', count);
    });
    for (const timeoutUs of [-1, limitUs]) {
      const script = `${untilWaiting}; kill -USR2 ${process.pid}; ${untilWaiting}; printf x`;
      const child = spawn('sh', ['-c', script], {
        stdio: ['ignore', writeFd, 'ignore'],
        env: plainEnvironment,
      });
      expect(waited([readFd], timeoutUs)).toEqual({ count: 1, ready: [1] });
      addon.drain(readFd);
      await once(child, 'exit');
    }
    expect(signals).toBe(2);
  });

  it.runIf(seesWaits)('is not lengthened or shortened by a signal', async () => {
    const [readFd] = createdPipe();
    const ignore = (): void => undefined;
    process.on('SIGUSR2', ignore);
    onTestFinished(() => {
      process.off('SIGUSR2', ignore);
    });
    const script = `${untilWaiting}; kill -USR2 ${process.pid}`;
    const child = spawn('sh', ['-c', script], { stdio: 'ignore', env: plainEnvironment });
    const startNs = process.hrtime.bigint();
    expect(waited([readFd], 300_000).count).toBe(0);
    expect(Number(process.hrtime.bigint() - startNs)).toBeGreaterThanOrEqual(300_000_000);
    await once(child, 'exit');
  });

  it('on a closed descriptor is an error, not a ready descriptor', () => {
    expect(failureOf(() => waited([2 ** 30], 0))).toMatchObject({ code: 'EBADF', syscall: 'ppoll' });
    expect(failureOf(() => addon.drain(2 ** 30))).toMatchObject({ code: 'EBADF', syscall: 'poll' });
    expect(failureOf(() => addon.ring(2 ** 30, 'eventfd'))).toMatchObject({
      code: 'EBADF',
      syscall: 'write',
    });
  });
});

describe('a process descriptor', () => {
  it('becomes readable when the process ends', async () => {
    const child = spawn('cat', [], { stdio: ['pipe', 'ignore', 'ignore'], env: plainEnvironment });
    const fd = addon.pidfdOpen(child.pid ?? 0);
    onTestFinished(() => closeSync(fd));
    expect(waited([fd], 0).count).toBe(0);
    child.kill('SIGKILL');
    expect(waited([fd], limitUs)).toEqual({ count: 1, ready: [1] });
    await once(child, 'exit');
  });

  it('is refused for a process that is not there', () => {
    const gone = spawnSync('true', { env: plainEnvironment });
    expect(failureOf(() => addon.pidfdOpen(gone.pid))).toMatchObject({
      code: 'ESRCH',
      syscall: 'pidfd_open',
      errno: -3,
    });
  });
});
