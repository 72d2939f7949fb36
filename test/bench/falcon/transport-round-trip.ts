/** The limit for Falcon over a transport: a record and an ack between two processes, both spinning, no consensus. */
import { Actor } from '../../framework/transport/actor.ts';
import type { TransportSettings } from '../../../vmm/io/transport/open.ts';
import type { NodeSettings } from './replica-node.ts';

const recordBytes = 64;

/** Round trips, µs each. */
export async function transportRoundTripsUs(
  transport: NodeSettings['transport'],
  samples: number,
  warmup: number,
): Promise<Float64Array> {
  const settings: TransportSettings =
    transport === 'shm' ? { kind: 'shm' } : { kind: 'fabric', provider: 'tcp;ofi_rxm', address: '127.0.0.1' };
  const leader = new Actor(1);
  const backup = new Actor(2);
  try {
    await Promise.all([leader.open(settings), backup.open(settings)]);
    await leader.meet(backup);
    const { reader, writer } = await backup.regionFor(leader);
    let times: unknown;
    for (const count of [warmup, samples]) {
      const echo = backup.call('echo', 1, reader, count);
      times = await leader.call('roundTrips', 2, writer, recordBytes, count);
      await echo;
    }
    return Float64Array.from(times as number[]);
  } finally {
    await Promise.all([leader.kill(), backup.kill()]);
  }
}
