/**
 * The limit: a record of 64 bytes and an answer of 8 through shared memory, both sides spinning, with no protocol.
 * This side runs it; the other is a thread of the same file.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { once } from 'node:events';

const words = 32;
const asked = 0;
const answered = 16;
const payloadWords = 14;

/** Round trips, µs each. */
export async function rawRoundTripsUs(samples: number, warmup: number): Promise<Float64Array> {
  const memory = new Int32Array(new SharedArrayBuffer(words * 4));
  const peer = new Worker(new URL('./raw-round-trip.js', import.meta.url), { workerData: memory });
  await once(peer, 'message');
  const times = new Float64Array(samples);
  for (let sample = 1 - warmup; sample <= samples; sample++) {
    const number = sample + warmup;
    const began = performance.now();
    memory.fill(number, asked + 1, asked + 1 + payloadWords);
    Atomics.store(memory, asked, number);
    while (Atomics.load(memory, answered) !== number);
    if (sample > 0) times[sample - 1] = (performance.now() - began) * 1000;
  }
  Atomics.store(memory, asked, -1);
  await once(peer, 'exit');
  return times;
}

function answer(memory: Int32Array): void {
  let last = 0;
  parentPort?.postMessage('ready');
  for (;;) {
    const number = Atomics.load(memory, asked);
    if (number === -1) return;
    if (number === last) continue;
    last = number;
    Atomics.store(memory, answered, number);
  }
}

if (!isMainThread && workerData instanceof Int32Array) answer(workerData);
