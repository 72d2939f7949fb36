/**
 * A lockstep guest whose memory is not what it has to be, by a fault of its host: found by the comparison after the next
 * request, it may not serve any more, and another guest with the leader's state takes its place.
 */
import { open, readdir, readlink, stat } from 'node:fs/promises';
import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NetworkNamespace } from '../framework/network-namespace.ts';
import { backupOf, hasReturned, leaderOf, replicaOf, signalReplica, TestVm } from '../framework/test-vm.ts';

const whyImpossible = NetworkNamespace.whyImpossible();
const chunkBytes = 1 << 20;
const guestBytes = 256 << 20;

/** Says one memcached command and prints the first line of the reply. */
const speak = `
  const [host, port, words] = process.argv.slice(1);
  const socket = require('node:net').connect(Number(port), host, () => socket.write(words));
  socket.setEncoding('latin1').on('data', (text) => { console.log(text.trim()); socket.end(); });
`;

/** The guest's RAM, as its QEMU has it open. */
async function memoryOf(pid: number): Promise<string> {
  const folder = `/proc/${pid}/fd`;
  for (const fd of await readdir(folder)) {
    const file = `${folder}/${fd}`;
    if (!(await readlink(file).catch(() => '')).startsWith('/memfd:')) continue;
    if ((await stat(file)).size === guestBytes) return file;
  }
  throw new Error(`QEMU ${pid} has no memory of ${guestBytes} bytes open`);
}

/** Writes `put` wherever the guest has `text`. Returns in how many places. */
async function replaceInMemory(pid: number, text: string, put: string): Promise<number> {
  const memory = await open(await memoryOf(pid), 'r+');
  try {
    const chunk = Buffer.alloc(chunkBytes + text.length - 1);
    let places = 0;
    for (let from = 0; from < guestBytes; from += chunkBytes) {
      const { bytesRead } = await memory.read(chunk, 0, chunk.length, from);
      const read = chunk.subarray(0, bytesRead);
      for (let at = read.indexOf(text); at !== -1; at = read.indexOf(text, at + 1)) {
        await memory.write(put, from + at, 'latin1');
        places++;
      }
    }
    return places;
  } finally {
    await memory.close();
  }
}

describe.skipIf(whyImpossible !== undefined)(`a guest that differs (${whyImpossible ?? 'real'})`, () => {
  let namespace: NetworkNamespace;
  let vm: TestVm;

  beforeAll(async () => {
    namespace = await NetworkNamespace.create();
    vm = await TestVm.prepare('differs', namespace);
  });

  afterAll(async () => {
    await vm.remove();
    await namespace.remove();
  });

  it('is found, serves nobody, and is replaced by one with the leader’s state', async () => {
    const { address, port, leader } = await vm.start('--mode', 'lockstep');
    const say = async (words: string) =>
      (await namespace.run(process.execPath, ['-e', speak, address, String(port), words])).trim();
    const right = `7${randomInt(1e13, 9e13)}`;
    const wrong = `8${right.slice(1)}`;
    expect(await say(`set total 0 0 ${right.length}\r\n${right}\r\n`)).toBe('STORED');
    const started = await vm.until((now) => now.protection === 'PROTECTED');
    const backup = backupOf(started);
    expect(await replaceInMemory(backup.status?.qemuPid ?? 0, right, wrong)).toBeGreaterThan(0);

    // The page of the number has to change before anyone looks at it.
    const total = (BigInt(right) + 1n).toString();
    expect(await say('incr total 1\r\n')).toBe(total);
    const names = async () => (await vm.events(leader ?? '')).map(({ name }) => name);
    await vm.untilEvents(leader ?? '', (events) => events.some(({ name }) => name === 'degraded'));
    expect(await names()).toContain('divergence');
    const again = await vm.until(
      (now) =>
        now.protection === 'PROTECTED' &&
        replicaOf(now, backup.name).status?.qemuPid !== backup.status?.qemuPid,
    );
    expect(leaderOf(again).status).toMatchObject({ mismatches: 1 });
    expect(leaderOf(again).status?.divergentPages).toBeGreaterThan(0);

    signalReplica(leaderOf(again), 'SIGKILL');
    await vm.until((now) => hasReturned(again, now, leader ?? '', 'host'));
    expect(await say('get total\r\n')).toMatch(new RegExp(`^VALUE total 0 \\d+\\s+${total}\\s`));
  });
});
