/** What transport.ts promises of messages, acks and waiting. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { messageBytesMax } from '../../../vmm/io/transport/transport.ts';
import type { TransportCheck } from './lab.ts';

/** A wait that nothing ends would take this long: far above any wake-up, far below patience. */
const waitLimitMs = 20_000;

export const messageChecks: readonly TransportCheck[] = [
  {
    title: 'messages of every size arrive whole, once and in order, both ways at the same time',
    async run(lab) {
      const [one, two] = await lab.pair();
      const sizes = { least: 0, most: 70_000 };
      const count = lab.repeats(1500);
      const there = { stream: 1, from: 0, count, sizes };
      const back = { stream: 2, from: 0, count, sizes };
      const results = await Promise.all([
        one.call('sendMessages', { ...there, peer: 2 }),
        two.call('takeMessages', { ...there, peer: 1 }),
        two.call('sendMessages', { ...back, peer: 1 }),
        one.call('takeMessages', { ...back, peer: 2 }),
      ]);
      deepEqual(results, [count, 'all', count, 'all']);
    },
  },
  {
    title: 'the largest message passes',
    async run(lab) {
      const [one, two] = await lab.pair();
      const largest = {
        stream: 3,
        from: 0,
        count: 8,
        sizes: { least: messageBytesMax, most: messageBytesMax },
      };
      const results = await Promise.all([
        one.call('sendMessages', { ...largest, peer: 2 }),
        two.call('takeMessages', { ...largest, peer: 1 }),
      ]);
      deepEqual(results, [8, 'all']);
    },
  },
  {
    title: 'a full ring says so, keeps what it took, and takes more once the slow reader has read',
    async run(lab) {
      const [one, two] = await lab.pair();
      const sizes = { least: 5000, most: 5000 };
      const taken = (await one.call('sendUntilFull', 2, 4, 5000)) as number;
      ok(taken > 100 && taken < 1000, `a ring took ${taken} messages`);
      equal(await one.call('sendUntilFull', 2, 4, 5000), 0);
      equal(await two.call('takeMessages', { peer: 1, stream: 4, from: 0, count: taken, sizes }), 'all');
      const more = { stream: 4, from: taken, count: taken, sizes };
      const results = await Promise.all([
        one.call('sendMessages', { ...more, peer: 2 }),
        two.call('takeMessages', { ...more, peer: 1 }),
      ]);
      deepEqual(results, [taken, 'all']);
    },
  },
  {
    title: 'of many acks and heartbeats the newest stays',
    async run(lab) {
      const [one, two] = await lab.pair();
      const count = lab.repeats(3000);
      await two.call('putAcks', 1, 5, 0, count);
      equal(await one.call('ackIs', 2, 5, count - 1), true);
      const region = await one.regionFor(two);
      await two.call('putHeartbeats', region.writer, 6, 0, count);
      equal(await one.call('heartbeatIs', region.reader, 6, count - 1), true);
    },
  },
  {
    title: 'a blocked replica is woken by a message and by an ack',
    async run(lab) {
      const [one, two] = await lab.pair();
      const message = { peer: 1, stream: 7, from: 0, count: 1, sizes: { least: 64, most: 64 } };
      const byMessage = await one.wakes([2, 'message', waitLimitMs], () => two.call('sendMessages', message));
      ok(byMessage < waitLimitMs / 2, `a message woke after ${byMessage} ms`);
      equal(await one.call('takeMessages', { ...message, peer: 2 }), 'all');
      const byAck = await one.wakes([2, 'ack', waitLimitMs], () => two.call('putAcks', 1, 8, 0, 1));
      ok(byAck < waitLimitMs / 2, `an ack woke after ${byAck} ms`);
    },
  },
  {
    title: 'the card of another replica, another transport or no card at all is refused',
    async run(lab) {
      const [one, two, three] = await Promise.all([lab.start(1), lab.start(2), lab.start(3)]);
      await one.call('invite', 2);
      const refused = { code: 'GAIA_PEER_CARD' };
      const forThree = (await two.call('invite', 3)) as Record<string, unknown>;
      await rejects(one.call('connect', 2, forThree), refused);
      const ofThree = await three.call('invite', 1);
      await rejects(one.call('connect', 2, ofThree), refused);
      await rejects(one.call('connect', 2, { ...forThree, transport: 'pigeons' }), refused);
      await rejects(one.call('connect', 2, {}), refused);
    },
  },
];
