/** What a client's connection costs by itself: 64 bytes to a thread on loopback and 8 bytes back, one at a time. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

const askedBytes = 64;
const answer = Buffer.alloc(8);

/** Round trips, µs each. */
export async function tcpRoundTripsUs(samples: number, warmup: number): Promise<Float64Array> {
  const server = new Worker(new URL('./tcp-round-trip.js', import.meta.url));
  try {
    const [port] = (await once(server, 'message')) as [number];
    const socket = connect(port, '127.0.0.1').setNoDelay(true);
    await once(socket, 'connect');
    const asked = Buffer.alloc(askedBytes, 0x5a);
    const times = new Float64Array(samples);
    for (let sample = -warmup; sample < samples; sample++) {
      const began = performance.now();
      const answered = once(socket, 'data');
      socket.write(asked);
      await answered;
      if (sample >= 0) times[sample] = (performance.now() - began) * 1000;
    }
    socket.destroy();
    return times;
  } finally {
    await server.terminate();
  }
}

async function serve(): Promise<void> {
  const server = createServer((socket) => {
    let waiting = 0;
    socket.setNoDelay(true).on('data', ({ length }) => {
      for (waiting += length; waiting >= askedBytes; waiting -= askedBytes) socket.write(answer);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  parentPort?.postMessage((server.address() as AddressInfo).port);
}

if (!isMainThread && import.meta.url.endsWith('/tcp-round-trip.js')) await serve();
