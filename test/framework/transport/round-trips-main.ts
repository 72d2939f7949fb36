/**
 * Measures round trips over a transport: a record of 64 bytes there, an ack of 8 bytes back, two processes, both
 * spinning. `node dist/test/framework/transport/round-trips-main.js [shm | tcp ADDRESS | verbs ADDRESS] [COUNT]`
 */
import type { TransportSettings } from '../../../vmm/io/transport/open.ts';
import { Actor } from './actor.ts';

const recordBytes = 64;
const [kind = 'shm', ...rest] = process.argv.slice(2);
const address = kind === 'shm' ? '' : (rest.shift() ?? '127.0.0.1');
const count = Number(rest.shift() ?? 20_000);
const settings: TransportSettings =
  kind === 'shm'
    ? { kind: 'shm' }
    : { kind: 'fabric', provider: kind === 'verbs' ? 'verbs;ofi_rxm' : 'tcp;ofi_rxm', address };

const leader = new Actor(1);
const backup = new Actor(2);
await Promise.all([leader.open(settings), backup.open(settings)]);
await leader.meet(backup);
const region = await backup.regionFor(leader);
const warmUp = Math.ceil(count / 10);
const turns: number[][] = [];
for (const trips of [warmUp, count]) {
  const echo = backup.call('echo', 1, region.reader, trips);
  turns.push((await leader.call('roundTrips', 2, region.writer, recordBytes, trips)) as number[]);
  await echo;
}
const times = turns[1] ?? [];
const at = (share: number): string => (times[Math.floor(share * (times.length - 1))] ?? 0).toFixed(2);
process.stdout.write(
  `${kind}: ${count} round trips of ${recordBytes} B + 8 B, us: p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}\n`,
);
await Promise.all([leader.kill(), backup.kill()]);
