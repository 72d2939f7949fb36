/**
 * Calls every function of the addon, in good order and out of it, on the main thread and in worker threads that
 * end or are terminated. Run under LeakSanitizer by sanitize.test.ts, which also sees to the arguments: the
 * addon's file, the program port-peer and a folder for sockets.
 */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const [file, peer, folder] = isMainThread ? process.argv.slice(2) : workerData;
const addon = createRequire(import.meta.url)(file);

/** None of them opens anything: no descriptor, no name that could be one. */
function strangeValues() {
  const gone = new Uint8Array(64);
  globalThis.structuredClone(gone.buffer, { transfer: [gone.buffer] });
  const numbers = [-1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 53, 1e300];
  const others = [undefined, null, true, 1n, '', 'x'.repeat(300), 'a\0b', {}, [], () => 1, Symbol('s')];
  const buffers = [new ArrayBuffer(8192), gone.buffer, new SharedArrayBuffer(64), gone];
  const views = [
    new Uint8Array(0),
    new Uint8Array(64),
    new Uint32Array(4),
    new Int32Array(0),
    new DataView(buffers[0]),
  ];
  return [...numbers, ...others, ...buffers, ...views];
}

/** Calls that nearly all fail; those that do not leave nothing behind. */
function callStrangely() {
  const values = strangeValues();
  const names = Object.keys(addon).filter((name) => name !== 'pipeCreate');
  for (let i = 0; i < 3000; i += 1) {
    const pick = (n) => values[(i * 7 + n * 13 + Math.floor(i / 31) * (n + 1)) % values.length];
    try {
      addon[names[i % names.length]](pick(0), pick(1), pick(2), pick(3), pick(4));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
    }
  }
}

function useMemory() {
  for (let i = 0; i < 20; i += 1) {
    const fd = addon.memoryCreate('gaia-leak', 65536);
    const memory = addon.memoryMap(fd, 0, 65536, true);
    addon.blake3Pages(memory, Uint32Array.of(0, 15, 3), 3, new Uint8Array(96));
    addon.blake3Parents(new Uint8Array(memory), 100, 40, new Uint8Array(1280));
    addon.blake3ParentsAt(new Uint8Array(memory), 512, Uint32Array.of(9, 3), 2, new Uint8Array(1280));
    addon.blake3Threads(1 + (i % 3));
    addon.blake3Pages(memory, new Uint32Array(2000), 2000, new Uint8Array(64_000));
    addon.blake3(new Uint8Array(memory, 0, 5000));
    addon.crc32c(new Uint8Array(memory), 0);
    // The others are left to the collector, or to the end of the thread.
    if (i % 2 === 0) addon.memoryUnmap(memory);
    closeSync(fd);
  }
}

function useDoorbells() {
  const [readFd, writeFd] = addon.pipeCreate();
  const pidfd = addon.pidfdOpen(process.pid);
  addon.ring(writeFd, 'pipe');
  addon.waitReadable(Int32Array.of(readFd, pidfd), new Uint8Array(2), -1);
  addon.drain(readFd);
  for (const fd of [readFd, writeFd, pidfd]) closeSync(fd);
}

function useLog() {
  const fd = addon.memoryCreate('gaia-leak-log', 65536);
  for (let i = 0; i < 4; i += 1) {
    const { writer } = addon.logWriterOpen(8192);
    for (let at = 0; at < 65536; at += 1024)
      addon.logWriterWrite(writer, fd, at, new Uint8Array(1024), 0, 1024, true);
    addon.logWriterPrepare(writer, '/proc/gaia-cannot-be-made', 4096, new Uint8Array(8));
    // The last one is left to the end of the thread, with its bytes still in memory that is open until then.
    if (i < 3) addon.logWriterClose(writer);
  }
}

function usePort() {
  const path = join(folder, 'leak');
  const listenFd = addon.portListen(path);
  const actions = ['send', '256', '66', 'send', '16', '81', 'send', '300', '1', 'send', '0', '1'];
  const ended = spawnSync(peer, [path, ...actions], { env: { ...process.env, LD_PRELOAD: '' } });
  if (ended.status !== 0) throw new Error(`The peer failed: ${ended.stderr.toString()}`);
  const fd = addon.portAccept(listenFd);
  for (let open = true; open;) {
    try {
      const message = addon.portReceive(fd, new Uint8Array(256));
      message.fds.forEach((received) => closeSync(received));
      open = message.bytes > 0;
    } catch (error) {
      if (!['EMSGSIZE', 'EBADMSG'].includes(error.code)) throw error;
    }
  }
  try {
    addon.portSend(fd, new Uint8Array(8));
  } catch (error) {
    if (error.code !== 'EPIPE') throw error;
  }
  closeSync(fd);
  closeSync(listenFd);
}

if (isMainThread) {
  callStrangely();
  useMemory();
  useDoorbells();
  useLog();
  usePort();
  for (let i = 0; i < 8; i += 1) {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: [file, peer, folder],
      trackUnmanagedFds: false,
    });
    await once(worker, 'message');
    // Every other one ends in the middle of its work.
    if (i % 2 === 0) await worker.terminate();
    else worker.postMessage('end');
    if (i % 2 === 1) await once(worker, 'exit');
  }
  console.log('exercised');
} else {
  callStrangely();
  parentPort.once('message', () => parentPort.close());
  parentPort.postMessage('busy');
  for (let i = 0; i < 20; i += 1) {
    useMemory();
    useDoorbells();
    useLog();
  }
}
