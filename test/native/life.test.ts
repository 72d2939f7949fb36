import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync, constants } from 'node:fs';
import { createInterface } from 'node:readline';
import { expect, it, onTestFinished } from 'vitest';
import { addonFile, loadAddon } from './addon.ts';

const addon = loadAddon();

/** A process that holds much memory, says where its page is, and waits; its words as this process sees them. */
async function living(): Promise<{ kill: () => Promise<unknown>; words: Uint32Array }> {
  const code = `
    const addon = require(process.argv[1]);
    const fd = addon.lifeMemory();
    if (addon.lifeMemory() !== fd) throw new Error('another page');
    const memory = new Uint8Array(addon.memoryMap(addon.memoryCreate('much', 2 ** 28), 0, 2 ** 28, true)).fill(1);
    console.log(fd);
    setInterval(() => memory[0]++, 60000);`;
  const child = spawn(process.execPath, ['-e', code, addonFile()], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const fd = openSync(`/proc/${child.pid ?? 0}/fd/${line}`, constants.O_RDWR);
  const words = new Uint32Array(addon.memoryMap(fd, 0, 4096, true), 0, 2);
  closeSync(fd);
  const exit = once(child, 'exit');
  return {
    words,
    kill: () => {
      child.kill('SIGKILL');
      return exit;
    },
  };
}

it('the words of a process are 1 while it lives, and it is told by them that it was killed', async () => {
  const { words, kill } = await living();
  expect([...words]).toEqual([1, 1]);
  await kill();
  // By now all of it is gone; of its two threads at most the very last one leaves its word as it was.
  expect([...words]).toContain(0);
});
