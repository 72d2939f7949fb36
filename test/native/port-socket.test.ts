import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  lstatSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import type { ReceivedMessage } from '../../native/binding.ts';
import { failureOf, loadAddon, openFds } from './addon.ts';
import { awaitReadable, PortFolder } from './port-peer.ts';

const addon = loadAddon();
const folder = new PortFolder();
afterAll(() => folder.remove());

function listening(name: string): number {
  const fd = addon.portListen(folder.socketPath(name));
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** The connection of a peer that has done `actions` and ended. */
function connected(name: string, actions: readonly string[]): number {
  const listenFd = listening(name);
  folder.run(name, actions);
  const fd = addon.portAccept(listenFd);
  expect(fd).toBeGreaterThanOrEqual(0);
  onTestFinished(() => closeSync(fd));
  return fd;
}

function received(fd: number, into: Uint8Array): ReceivedMessage {
  const message = addon.portReceive(fd, into);
  if (message === null) throw new Error('A message should be waiting');
  return message;
}

describe('listening on a port', () => {
  it('makes a socket that only its owner may use, whatever the umask', () => {
    const umask = process.umask(0);
    onTestFinished(() => {
      process.umask(umask);
    });
    listening('mode');
    expect(statSync(folder.socketPath('mode')).mode & 0o777).toBe(0o600);
  });

  it('replaces a socket that a dead process left behind', () => {
    closeSync(addon.portListen(folder.socketPath('stale')));
    expect(lstatSync(folder.socketPath('stale')).isSocket()).toBe(true);
    const listenFd = listening('stale');
    folder.run('stale', []);
    const fd = addon.portAccept(listenFd);
    expect(fd).toBeGreaterThanOrEqual(0);
    closeSync(fd);
  });

  it('leaves a socket in use alone, and its holder does not notice', async () => {
    const listenFd = listening('held');
    const failure = failureOf(() => addon.portListen(folder.socketPath('held')));
    expect(failure).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind', errno: -98 });
    expect(addon.portAccept(listenFd)).toBe(-1);
    folder.run('held', []);
    closeSync(addon.portAccept(listenFd));

    const server = createServer();
    await once(server.listen(folder.socketPath('stream')), 'listening');
    onTestFinished(() => {
      server.close();
    });
    expect(failureOf(() => addon.portListen(folder.socketPath('stream'))).code).toBe('EADDRINUSE');
  });

  it('removes nothing that is not a socket', () => {
    writeFileSync(folder.socketPath('file'), 'precious');
    expect(failureOf(() => addon.portListen(folder.socketPath('file'))).code).toBe('EADDRINUSE');
    expect(readFileSync(folder.socketPath('file'), 'utf8')).toBe('precious');

    closeSync(addon.portListen(folder.socketPath('target')));
    symlinkSync('target', folder.socketPath('link'));
    expect(failureOf(() => addon.portListen(folder.socketPath('link'))).code).toBe('EADDRINUSE');
    expect(readlinkSync(folder.socketPath('link'))).toBe('target');
    expect(existsSync(folder.socketPath('target'))).toBe(true);
  });

  it('takes a path of 107 bytes and refuses one of 108, counted in UTF-8', () => {
    const rest = 107 - Buffer.byteLength(`${folder.path}/`);
    const longest = `é${'x'.repeat(rest - 2)}`;
    closeSync(addon.portListen(folder.socketPath(longest)));
    expect(lstatSync(folder.socketPath(longest)).isSocket()).toBe(true);
    unlinkSync(folder.socketPath(longest));
    expect(() => addon.portListen(folder.socketPath(`${longest}x`))).toThrow(RangeError);
  });

  it('names the path and the failed call, and keeps no descriptor', () => {
    const before = openFds();
    const failure = failureOf(() => addon.portListen(folder.socketPath('no/folder')));
    expect(failure).toMatchObject({ code: 'ENOENT', syscall: 'bind' });
    expect(failure.message).toContain(folder.socketPath('no/folder'));
    expect(openFds()).toEqual(before);
  });

  it('accepts nobody when nobody is waiting, and says so', () => {
    expect(addon.portAccept(listening('nobody'))).toBe(-1);
    expect(failureOf(() => addon.portAccept(2 ** 30))).toMatchObject({ code: 'EBADF', syscall: 'accept4' });
  });
});

describe('receiving from a port', () => {
  it('gives each message with its own bytes and descriptors, in order, then the hang-up', () => {
    const fd = connected('order', ['send', '256', '66', 'send', '3', '0', 'send', '256', '80']);
    const into = new Uint8Array(256);
    const first = received(fd, into);
    expect([first.bytes, first.fds.length, into[255]]).toEqual([256, 66, 255]);
    const second = received(fd, into);
    expect([second.bytes, second.fds.length]).toEqual([3, 0]);
    const third = received(fd, into);
    expect([third.bytes, third.fds.length]).toEqual([256, 80]);
    for (const fds of [first.fds, third.fds]) {
      fds.forEach((memory, i) => {
        const content = Buffer.alloc(8);
        expect(content.toString('utf8', 0, readSync(memory, content, 0, 8, 0))).toBe(String(i));
        const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${memory}`, 'utf8'))?.[1];
        expect(Number.parseInt(flags ?? '', 8) & 0o2000000).toBe(0o2000000);
        closeSync(memory);
      });
    }
    expect(received(fd, into)).toEqual({ bytes: 0, fds: [] });
    expect(received(fd, into)).toEqual({ bytes: 0, fds: [] });
  });

  it('is null while the peer lives and has sent nothing', async () => {
    const listenFd = listening('quiet');
    const peer = folder.start('quiet', ['hold']);
    awaitReadable(addon, listenFd);
    const fd = addon.portAccept(listenFd);
    expect(addon.portReceive(fd, new Uint8Array(256))).toBeNull();
    closeSync(fd);
    peer.stdin?.end();
    await once(peer, 'exit');
  });

  it.each([
    ['more bytes than the buffer has', ['send', '17', '2'], 16],
    ['more descriptors than it takes', ['send', '16', '81'], 16],
    ['both', ['send', '17', '253'], 16],
  ])('refuses a message with %s, closes what came, and reads on', (_, actions, bytes) => {
    const fd = connected('large', [...actions, 'send', '16', '1']);
    const into = new Uint8Array(bytes);
    const before = openFds();
    const failure = failureOf(() => addon.portReceive(fd, into));
    expect(failure).toMatchObject({ code: 'EMSGSIZE', syscall: 'recvmsg', errno: -90 });
    expect(openFds()).toEqual(before);
    const next = received(fd, into);
    expect([next.bytes, next.fds.length]).toEqual([16, 1]);
    next.fds.forEach((memory) => {
      closeSync(memory);
    });
  });

  it('does not take descriptors without bytes for a hang-up', () => {
    const fd = connected('empty', ['send', '0', '2', 'send', '1', '0']);
    const before = openFds();
    expect(failureOf(() => addon.portReceive(fd, new Uint8Array(8))).code).toBe('EBADMSG');
    expect(openFds()).toEqual(before);
    expect(received(fd, new Uint8Array(8)).bytes).toBe(1);
  });

  it('gives what a peer sent before it died without reading its own messages', async () => {
    const listenFd = listening('rude');
    const peer = folder.start('rude', ['send', '16', '1', 'await']);
    awaitReadable(addon, listenFd);
    const fd = addon.portAccept(listenFd);
    addon.portSend(fd, Uint8Array.of(1));
    await once(peer, 'exit');
    const message = received(fd, new Uint8Array(256));
    expect([message.bytes, message.fds.length]).toEqual([16, 1]);
    message.fds.forEach((memory) => {
      closeSync(memory);
    });
    expect(received(fd, new Uint8Array(256)).bytes).toBe(0);
    closeSync(fd);
  });

  it('writes into the window of the buffer it was given, and nowhere else', () => {
    const fd = connected('window', ['send', '4', '0']);
    const whole = new Uint8Array(12).fill(99);
    expect(received(fd, whole.subarray(4, 8)).bytes).toBe(4);
    expect([...whole]).toEqual([99, 99, 99, 99, 0, 1, 2, 3, 99, 99, 99, 99]);
  });
});

describe('sending to a port', () => {
  it('delivers the message whole', async () => {
    const listenFd = listening('send');
    const peer = folder.start('send', ['receive', 'receive']);
    awaitReadable(addon, listenFd);
    const fd = addon.portAccept(listenFd);
    addon.portSend(fd, Uint8Array.of(1, 2, 255));
    addon.portSend(fd, new Uint8Array(256).subarray(0, 2));
    if (peer.stdout === null) throw new Error('The peer has no output');
    expect(await text(peer.stdout)).toBe('0102ff\n0000\n');
    closeSync(fd);
  });

  it('throws EAGAIN instead of waiting for a peer that does not read', async () => {
    const listenFd = listening('busy');
    const peer = folder.start('busy', ['hold']);
    awaitReadable(addon, listenFd);
    const fd = addon.portAccept(listenFd);
    const failure = failureOf(() => {
      for (;;) addon.portSend(fd, new Uint8Array(1024));
    });
    expect(failure).toMatchObject({ code: 'EAGAIN', syscall: 'send', errno: -11 });
    closeSync(fd);
    peer.stdin?.end();
    await once(peer, 'exit');
  });

  it('throws EPIPE, and nothing worse, when the peer has hung up', () => {
    const fd = connected('gone', []);
    expect(failureOf(() => addon.portSend(fd, new Uint8Array(1)))).toMatchObject({ code: 'EPIPE' });
  });
});
