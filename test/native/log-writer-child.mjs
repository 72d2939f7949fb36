/**
 * Writes blocks of 512 bytes, block n filled with n modulo 251, one after the other into `file`, and says after each
 * group how far it is durable. Ends when `count` are, or the writer has failed: then it says so.
 */
import { openSync } from 'node:fs';
import { createRequire } from 'node:module';

const [addonFile, file, count] = process.argv.slice(2);
const addon = createRequire(import.meta.url)(addonFile);
const log = addon.logWriterOpen(8192);
const words = new Int32Array(log.words);
const fd = openSync(file, 'w+');
const block = new Uint8Array(512);
let written = 0;
let durable = 0;
while (durable < Number(count)) {
  while (
    written < Number(count) &&
    addon.logWriterWrite(log.writer, fd, written * 512, block.fill(written % 251), 0, 512, true)
  )
    written += 1;
  addon.waitReadable(Int32Array.of(log.eventFd), new Uint8Array(1), 1_000_000);
  addon.drain(log.eventFd);
  durable = Atomics.load(words, 0);
  const errno = Atomics.load(words, 1);
  if (errno !== 0) {
    // Whatever is written from now on must never be called durable.
    for (let trying = 0; trying < 3; trying += 1)
      addon.logWriterWrite(log.writer, fd, 0, block, 0, 512, true);
    addon.logWriterClose(log.writer);
    console.log(
      JSON.stringify({ errno, call: Atomics.load(words, 2), before: durable, after: Atomics.load(words, 0) }),
    );
    process.exit(0);
  }
  console.log(durable);
}
addon.logWriterClose(log.writer);
console.log(JSON.stringify({ groups: Atomics.load(words, 6) }));
