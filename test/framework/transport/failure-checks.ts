/** What transport.ts promises when a process dies, freezes or comes back. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type { TransportCheck } from './lab.ts';

const small = { least: 8, most: 1500 };
const mixed = { least: 8, most: 200_000 };
const goneLimitMs = 15_000;

export const failureChecks: readonly TransportCheck[] = [
  {
    title: 'of a writer that is killed at any moment whole records are seen, and its death is told',
    async run(lab) {
      for (let round = 0; round < lab.repeats(5); round++) {
        const [one, two] = await lab.pair();
        const region = await one.regionFor(two);
        const stream = { peer: 0, stream: 20 + round, from: 0, count: 0, sizes: mixed };
        await two.call('putForEver', region.writer, stream);
        equal(await one.call('takeRecords', region.reader, { ...stream, count: 10 + 7 * round }), 'all');
        await two.kill();
        const seen = await one.call('takeWhatComes', region.reader, { ...stream, from: 10 + 7 * round }, 200);
        equal(typeof seen, 'number', String(seen));
        const goneMs = (await one.call('waitForGone', 2, goneLimitMs)) as number;
        ok(goneMs >= 0, 'the death of a peer was not told');
        await one.kill();
      }
    },
  },
  {
    title: 'a reader that is killed holds nobody up, and its death is told',
    async run(lab) {
      const [one, two] = await lab.pair();
      const region = await one.regionFor(two);
      const stream = { peer: 0, stream: 30, from: 0, count: 0, sizes: small };
      await two.call('putForEver', region.writer, stream);
      equal(await one.call('takeRecords', region.reader, { ...stream, count: 50 }), 'all');
      await one.kill();
      ok(((await two.call('waitForGone', 1, goneLimitMs)) as number) >= 0);
    },
  },
  {
    title: 'a peer that comes back as another process begins anew: nothing of the old session is seen',
    async run(lab) {
      const one = await lab.start(1);
      for (let life = 0; life < lab.repeats(4); life++) {
        const two = await lab.start(2);
        await one.meet(two);
        const stream = { stream: 40 + life, from: 0, count: 300, sizes: small };
        const region = await one.regionFor(two);
        const results = await Promise.all([
          two.call('sendMessages', { ...stream, peer: 1 }),
          one.call('takeMessages', { ...stream, peer: 2 }),
          one.call('sendMessages', { ...stream, peer: 2 }),
          two.call('takeMessages', { ...stream, peer: 1 }),
          two.call('putRecords', region.writer, { ...stream, peer: 0 }),
          one.call('takeRecords', region.reader, { ...stream, peer: 0 }),
        ]);
        deepEqual(results, [300, 'all', 300, 'all', 300, 'all'], `life ${life}`);
        // It dies with messages that were not read, and with more under way.
        await two.call('sendMessages', { ...stream, from: 300, peer: 1 });
        await two.kill();
        ok(((await one.call('waitForGone', 2, goneLimitMs)) as number) >= 0, `life ${life}`);
      }
    },
  },
  {
    title: 'the death of one peer harms no other',
    async run(lab) {
      const [one, two] = await lab.pair();
      const three = await lab.start(3);
      await one.meet(three);
      await two.meet(three);
      const count = lab.repeats(4000);
      const stream = { stream: 50, from: 0, count, sizes: small };
      const sending = one.call('sendMessages', { ...stream, peer: 2 });
      const taking = two.call('takeMessages', { ...stream, peer: 1 });
      await three.kill();
      deepEqual(await Promise.all([sending, taking]), [count, 'all']);
    },
  },
  {
    title: 'a peer that freezes for a moment loses nothing',
    async run(lab) {
      const [one, two] = await lab.pair();
      const count = lab.repeats(3000);
      const stream = { stream: 51, from: 0, count, sizes: small };
      const sending = one.call('sendMessages', { ...stream, peer: 2 });
      const taking = two.call('takeMessages', { ...stream, peer: 1 });
      for (let freeze = 0; freeze < 4; freeze++) {
        two.signal('SIGSTOP');
        await new Promise((resolve) => setTimeout(resolve, 100)); // The freeze itself.
        two.signal('SIGCONT');
        await new Promise((resolve) => setTimeout(resolve, 20)); // Time to run in between.
      }
      deepEqual(await Promise.all([sending, taking]), [count, 'all']);
    },
  },
  {
    title: 'killed processes leave nothing behind, and the survivor holds no more than before',
    async run(lab) {
      const before = readdirSync('/dev/shm').sort();
      const one = await lab.start(1);
      const live = async (): Promise<number> => {
        const two = await lab.start(2);
        await one.meet(two);
        const region = await one.regionFor(two);
        const stream = { peer: 1, stream: 60, from: 0, count: 20, sizes: small };
        await two.call('putRecords', region.writer, stream);
        equal(await one.call('takeRecords', region.reader, stream), 'all');
        await two.kill();
        ok(((await one.call('waitForGone', 2, goneLimitMs)) as number) >= 0);
        await one.call('closeReader', region.reader);
        return (await one.call('openDescriptors')) as number;
      };
      await live();
      const first = await live();
      let last = first;
      const more = lab.repeats(4);
      for (let life = 0; life < more; life++) last = await live();
      ok(last <= first + 2, `${first} descriptors were open after 2 peers, ${last} after ${2 + more}`);
      await one.kill();
      deepEqual(readdirSync('/dev/shm').sort(), before);
    },
  },
];
