/** What transport.ts promises of regions: one writer and one term each, and never read again once closed. */
import { deepEqual, equal, rejects } from 'node:assert/strict';
import type { TransportCheck } from './lab.ts';

const small = { least: 8, most: 1500 };
/** How long nothing must show up where nothing may: long against any transport's delay. */
const quietMs = 300;

export const regionChecks: readonly TransportCheck[] = [
  {
    title: 'records of every size arrive whole and in order, many times around the ring',
    async run(lab) {
      const [one, two] = await lab.pair();
      const region = await one.regionFor(two);
      const count = lab.repeats(4000);
      const records = { peer: 0, stream: 11, from: 0, count, sizes: { least: 8, most: 100_000 } };
      const results = await Promise.all([
        two.call('putRecords', region.writer, records),
        one.call('takeRecords', region.reader, records),
      ]);
      deepEqual(results, [count, 'all']);
    },
  },
  {
    title: 'a record of 8 MiB passes between small ones',
    async run(lab) {
      const [one, two] = await lab.pair();
      const region = await one.regionFor(two);
      const before = { peer: 0, stream: 12, from: 0, count: 5, sizes: small };
      const large = { peer: 0, stream: 12, from: 5, count: 3, sizes: { least: 1 << 23, most: 1 << 23 } };
      const after = { ...before, from: 8 };
      const put = async () => {
        for (const part of [before, large, after]) await two.call('putRecords', region.writer, part);
      };
      const take = async () => {
        const results: unknown[] = [];
        for (const part of [before, large, after])
          results.push(await one.call('takeRecords', region.reader, part));
        return results;
      };
      const [, taken] = await Promise.all([put(), take()]);
      deepEqual(taken, ['all', 'all', 'all']);
    },
  },
  {
    title: 'a region whose reader takes nothing fills up, and goes on when it does',
    async run(lab) {
      const [one, two] = await lab.pair();
      const region = await one.regionFor(two);
      const sizes = { least: 60_000, most: 60_000 };
      const records = { peer: 0, stream: 13, from: 0, count: 600, sizes };
      const putting = two.call('putRecords', region.writer, records);
      equal(await one.call('recordWaits', region.reader, 20_000), true);
      equal(await one.call('takeRecords', region.reader, records), 'all');
      equal(await putting, 600);
    },
  },
  {
    title: 'what a deposed writer goes on putting is never seen in the region of the next term',
    async run(lab) {
      const [one, two] = await lab.pair();
      const three = await lab.start(3);
      await one.meet(three);
      const old = await one.regionFor(two);
      await two.call('putForEver', old.writer, { peer: 0, stream: 14, from: 0, count: 0, sizes: small });
      equal(
        await one.call('takeRecords', old.reader, { stream: 14, from: 0, count: 50, sizes: small }),
        'all',
      );
      await one.call('closeReader', old.reader);
      const next = await one.regionFor(three);
      const count = lab.repeats(2000);
      const records = { peer: 0, stream: 15, from: 0, count, sizes: small };
      const results = await Promise.all([
        three.call('putRecords', next.writer, records),
        one.call('takeRecords', next.reader, records),
      ]);
      deepEqual(results, [count, 'all']);
      equal(await one.call('recordWaits', next.reader, quietMs), false);
      equal(await one.call('heartbeatIsBlank', next.reader), true);
    },
  },
  {
    title: 'a writer that was told of no new term puts into the old region only, also where both are its own',
    async run(lab) {
      const [one, two] = await lab.pair();
      const old = await one.regionFor(two);
      await two.call('putForEver', old.writer, { peer: 0, stream: 16, from: 0, count: 0, sizes: small });
      equal(await one.call('recordWaits', old.reader, 20_000), true);
      await one.call('closeReader', old.reader);
      const next = (await one.call('openRegion', 2)) as { reader: number; key: string };
      equal(await one.call('recordWaits', next.reader, quietMs), false);
      equal(await one.call('heartbeatIsBlank', next.reader), true);
    },
  },
  {
    title: 'a writer that was frozen in the middle of a put and returns is not seen either',
    async run(lab) {
      const [one, two] = await lab.pair();
      const three = await lab.start(3);
      await one.meet(three);
      const old = await one.regionFor(two);
      const large = { least: 8, most: 400_000 };
      await two.call('putForEver', old.writer, { peer: 0, stream: 17, from: 0, count: 0, sizes: large });
      equal(
        await one.call('takeRecords', old.reader, { stream: 17, from: 0, count: 5, sizes: large }),
        'all',
      );
      two.signal('SIGSTOP');
      await one.call('closeReader', old.reader);
      const next = await one.regionFor(three);
      two.signal('SIGCONT');
      const count = lab.repeats(2000);
      const records = { peer: 0, stream: 18, from: 0, count, sizes: small };
      const results = await Promise.all([
        three.call('putRecords', next.writer, records),
        one.call('takeRecords', next.reader, records),
      ]);
      deepEqual(results, [count, 'all']);
      equal(await one.call('recordWaits', next.reader, quietMs), false);
    },
  },
  {
    title: 'closing a region harms neither messages nor the next region of the same peer, many times',
    async run(lab) {
      const [one, two] = await lab.pair();
      const count = lab.repeats(100);
      for (let term = 0; term < count; term++) {
        const region = await one.regionFor(two);
        const records = { peer: 0, stream: 1000 + term, from: 0, count: 20, sizes: small };
        await two.call('putRecords', region.writer, records);
        equal(await one.call('takeRecords', region.reader, records), 'all', `term ${term}`);
        await one.call('closeReader', region.reader);
        // More of the same, into a region that is closed by now.
        await two.call('putRecords', region.writer, { ...records, from: 20 });
        const message = { stream: 19, from: term, count: 1, sizes: small };
        await two.call('sendMessages', { ...message, peer: 1 });
        equal(await one.call('takeMessages', { ...message, peer: 2 }), 'all', `message ${term}`);
      }
    },
  },
  {
    title: 'the key of a region that was closed meanwhile reaches no other region',
    async run(lab) {
      const [one, two] = await lab.pair();
      const old = (await one.call('openRegion', 2)) as { reader: number; key: string };
      await one.call('closeReader', old.reader);
      const next = (await one.call('openRegion', 2)) as { reader: number; key: string };
      const records = { peer: 0, stream: 20, from: 0, count: 5, sizes: small };
      try {
        const writer = (await two.call('attachRegion', 1, old.key)) as number;
        await two.call('putRecords', writer, records);
      } catch {
        // Refused at once: as good as put where nobody reads.
      }
      equal(await one.call('recordWaits', next.reader, quietMs), false);
      equal(await one.call('heartbeatIsBlank', next.reader), true);
      const writer = (await two.call('attachRegion', 1, next.key)) as number;
      equal(await two.call('putRecords', writer, records), records.count);
      equal(await one.call('takeRecords', next.reader, records), 'all');
    },
  },
  {
    title: 'a key that is none, or another replica’s, attaches nothing',
    async run(lab) {
      const [one, two] = await lab.pair();
      const three = await lab.start(3);
      await one.meet(three);
      await two.meet(three);
      await rejects(two.call('attachRegion', 1, '0011'));
      const ofThree = (await three.call('openRegion', 2)) as { key: string };
      await rejects(two.call('attachRegion', 1, `${'ff'.repeat(4)}${ofThree.key.slice(8)}`), {
        code: 'GAIA_REGION_KEY',
      });
    },
  },
];
