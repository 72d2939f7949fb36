/** The promise that everything later rests on: two guests with the same inputs are the same, byte by byte. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countBits, uniteInto } from '../../../merkle/bitmap.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { differingPages, MemoryCopy } from '../../framework/guest-memory.ts';
import { LoadProcess } from '../../framework/load-process.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import type { LoadReport } from '../../framework/memcached-load.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { PortLab, running } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, memcachedImage } from '../../framework/port-machine.ts';

const connections = 8;
const rounds = 500;
const compareEveryRounds = 10;
const warmingRounds = 1000;
const roundNs = 250_000;
const whyImpossible = NetworkNamespace.whyImpossible();

describe.skipIf(whyImpossible !== undefined).each<Machine>(['pc', 'microvm'])(
  `two guests on a %s (${whyImpossible ?? 'memcached, live clients'})`,
  (machine) => {
    let lab: PortLab | undefined;
    let load: LoadProcess<LoadReport> | undefined;
    let pair: LockstepPair;

    beforeAll(async () => {
      lab = await PortLab.create();
      const image = await memcachedImage();
      const leader = lab.startImage('leader', image, { machine });
      leader.bootUntil(image.readyMarker ?? '');
      await lab.bringUp('leader', hostNetwork);
      leader.port.divertIngress(true);
      const step = () => void leader.runFor(roundNs, leader.takeIngress(), true);
      const clients = [guestAddress, String(image.port), String(connections)];
      load = await running(LoadProcess.start<LoadReport>(lab.namespace, 'memcached-load.js', clients), step);
      for (let round = 0; round < warmingRounds; round++) step();
      pair = LockstepPair.clone(leader, lab.startImage('backup', image, { machine }));
    });

    afterAll(async () => {
      load?.kill();
      await lab?.remove();
    });

    it('a clone is byte-equal to its original', () => {
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
    });

    it(`after each tenth of ${rounds} rounds every block is byte-equal, and no changed page is missing in the dirty bitmaps`, () => {
      const copies = pair.guests.map((guest) => new MemoryCopy(guest.port));
      const dirty = pair.guests.map((guest) => new Uint32Array(guest.port.dirtyBitmap.length));
      let frames = 0;
      let changedPages = 0;
      let dirtyPages = 0;
      const begun = performance.now();
      for (let round = 1; round <= rounds; round++) {
        const { frames: given, stopped, output } = pair.round(roundNs);
        frames += given.length;
        expect(stopped[1], `round ${round}`).toEqual(stopped[0]);
        expect(output[1], `round ${round}`).toEqual(output[0]);
        for (const [index, guest] of pair.guests.entries()) {
          guest.port.collect();
          uniteInto(dirty[index] ?? new Uint32Array(), guest.port.dirtyBitmap);
        }
        if (round % compareEveryRounds !== 0 && round !== rounds) continue;
        expect(differingPages(pair.leader.port, pair.backup.port), `round ${round}`).toEqual([]);
        for (const [index, copy] of copies.entries()) {
          const since = dirty[index] ?? new Uint32Array();
          const changed = copy.renew();
          expect(copy.missing(changed, since), `round ${round}, guest ${index}`).toEqual([]);
          changedPages += countBits(changed);
          dirtyPages += countBits(since);
          since.fill(0);
        }
      }
      console.log(machine, performance.now() - begun, { frames, changedPages, dirtyPages });
      expect(frames).toBeGreaterThan(rounds);
      expect(changedPages).toBeGreaterThan(rounds);
    });

    it('frames that the guest has no buffer for stay first in line, on both sides alike', () => {
      // More frames than a card of either machine has buffers, fewer askers than the guest's table of neighbours.
      const askers = Array.from({ length: 1200 }, (_, number) => `10.71.0.${10 + (number % 240)}`);
      const requests = askers.map((asker) => arpRequest(guestAddress, asker));
      const heads = pair.guests.map((guest) => guest.port.deliver.head);
      const answered: string[] = [];
      let waited = false;
      for (let round = 0; answered.length < askers.length && round < 100; round++) {
        const { stopped, output } = pair.round(roundNs, round === 0 ? requests : []);
        expect(stopped[1]).toEqual(stopped[0]);
        expect(output[1]).toEqual(output[0]);
        waited ||= stopped[0].deliverTail !== pair.leader.port.deliver.head;
        answered.push(...output[0].flatMap((frame) => arpAsker(Buffer.from(frame, 'hex'), guestAddress) ?? []));
      }
      console.log(heads, waited, answered.length);
      expect(waited).toBe(true);
      expect(answered).toEqual(askers);
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
    });

    it('no client saw an error or a value it had not written', async () => {
      const report = await running(load?.stop(), () => void pair.round(roundNs));
      console.log(report.operations, report.longestReplyMs, report.medianReplyMs);
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(report.operations).toBeGreaterThan(rounds);
    });
  },
);
