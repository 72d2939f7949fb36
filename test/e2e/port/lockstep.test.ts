/** The promise that everything later rests on: two guests with the same inputs are the same, byte by byte. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countBits, uniteInto } from '../../../merkle/bitmap.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { differingPages, MemoryCopy } from '../../framework/guest-memory.ts';
import { LoadProcess } from '../../framework/load-process.ts';
import { LockstepPair, type PairRound } from '../../framework/lockstep-pair.ts';
import type { LoadReport } from '../../framework/load-program.ts';
import { NetworkNamespace } from '../../framework/network-namespace.ts';
import { PortLab, running } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, memcachedImage } from '../../framework/port-machine.ts';

const connections = 8;
const rounds = 500;
const comparedEveryRounds = 10;
const clones = 12;
const roundsBetweenClones = 40;
const warmingRounds = 500;
const roundNs = 250_000;
/** One instruction, at the profile's icount shift. */
const instructionNs = 4;
const whyImpossible = NetworkNamespace.whyImpossible();

function expectEqual(round: PairRound, which: string): void {
  expect(round.stopped[1], which).toEqual(round.stopped[0]);
  expect(round.output[1], which).toEqual(round.output[0]);
}

/** Who was answered in `output`, in order. */
function answeredAskers(output: readonly string[]): string[] {
  return output.flatMap((frame) => arpAsker(Buffer.from(frame, 'hex'), guestAddress) ?? []);
}

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

    it(`over ${rounds} rounds they stop and send alike, every tenth finds each block byte-equal, and no page that changed is missing in the dirty bitmaps`, () => {
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
      const watched = pair.guests.map(({ port }) => {
        return { port, copy: new MemoryCopy(port), dirty: new Uint32Array(port.dirtyBitmap.length) };
      });
      const sums = { frames: 0, changedPages: 0, dirtyPages: 0 };
      for (let number = 1; number <= rounds; number++) {
        const which = `round ${number}`;
        const round = pair.round(roundNs);
        expectEqual(round, which);
        sums.frames += round.frames.length;
        for (const { port, dirty } of watched) {
          port.collect();
          uniteInto(dirty, port.dirtyBitmap);
        }
        if (number % comparedEveryRounds !== 0) continue;
        expect(differingPages(pair.leader.port, pair.backup.port), which).toEqual([]);
        for (const { port, copy, dirty } of watched) {
          const changed = copy.renew();
          expect(copy.missing(changed, dirty), `${which}, QEMU ${port.qemuPid}`).toEqual([]);
          sums.changedPages += countBits(changed);
          sums.dirtyPages += countBits(dirty);
          dirty.fill(0);
        }
      }
      // Otherwise the comparisons prove nothing.
      expect(sums.frames).toBeGreaterThan(rounds);
      expect(sums.changedPages).toBeGreaterThan(rounds);
      expect(sums.dirtyPages).toBeGreaterThanOrEqual(sums.changedPages);
    });

    it(`a guest that has run takes the other's state again, ${clones} times in the midst of traffic, and neither loses step`, () => {
      for (let clone = 0; clone < clones; clone++) {
        // The leader runs on alone, as one without a backup does.
        for (let round = 0; round < roundsBetweenClones; round++) {
          pair.leader.runFor(roundNs, pair.leader.takeIngress(), true);
        }
        const { head } = pair.leader.held;
        pair.backup.port.pause();
        pair = LockstepPair.clone(pair.leader, pair.backup);
        expect(pair.leader.held, 'a stop sends nothing').toEqual({ head, tail: head });
        // The first rounds are short, so that what the load itself sets off falls into rounds of its own.
        for (const ns of [5000, 5000, 5000, 5000, roundNs, roundNs]) {
          const which = `clone ${clone}, round of ${ns} ns`;
          expectEqual(pair.round(ns), which);
          expect(differingPages(pair.leader.port, pair.backup.port), which).toEqual([]);
        }
      }
    });

    it('device state saved between two rounds leaves no trace in the guest', () => {
      for (let number = 0; number < 50; number++) {
        pair.leader.port.save();
        expectEqual(pair.round(roundNs), `round ${number}`);
      }
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
    });

    it('a frame due at the very instant of a stop is sent, and where rounds are cut changes nothing', () => {
      quiesce(pair);
      const { leader, backup } = pair;
      const begin = leader.virtualNs;
      const request = arpRequest(guestAddress, '10.71.0.77');
      // The leader finds out when the answer leaves the card, to a microsecond.
      leader.runFor(1000, [request], true);
      while (leader.takeOutput().length === 0) {
        expect(leader.virtualNs - begin).toBeLessThan(10 * roundNs);
        leader.runFor(1000, [], true);
      }
      // The backup stops at each of that microsecond's instructions, so at the one in which the timer is due too.
      backup.runUntil(leader.virtualNs - 1000 - instructionNs, [request]);
      while (backup.virtualNs < leader.virtualNs) {
        backup.runUntil(Math.min(backup.virtualNs + instructionNs, leader.virtualNs));
      }
      backup.runUntil(begin + 10 * roundNs);
      leader.runUntil(begin + 10 * roundNs, [], true);
      const output = backup.takeOutput().map((frame) => Buffer.from(frame).toString('hex'));
      expect(answeredAskers(output)).toEqual(['10.71.0.77']);
      expect(leader.takeOutput()).toEqual([]);
      backup.port.drop(backup.held.head);
      expect(differingPages(leader.port, backup.port)).toEqual([]);
    });

    it('a busy guest cut into rounds of odd lengths is the one that ran in one round', () => {
      quiesce(pair);
      const { leader, backup } = pair;
      const requests = Array.from({ length: 100 }, () => arpRequest(guestAddress, '10.71.0.78'));
      const until = leader.virtualNs + 20 * roundNs;
      leader.runUntil(until, requests, true);
      for (let number = 0; backup.virtualNs < until; number++) {
        const next = backup.virtualNs + 101 + 37 * (number % 211);
        backup.runUntil(Math.min(next, until), number === 0 ? requests : []);
      }
      expect(backup.takeOutput()).toEqual(leader.takeOutput());
      backup.port.drop(backup.held.head);
      expect(differingPages(leader.port, backup.port)).toEqual([]);
    });

    it('frames that the guest has no buffer for stay first in line, on both sides alike', () => {
      // More frames than the card of either machine has buffers, fewer askers than the guest keeps neighbours.
      const askers = Array.from({ length: 1200 }, (_, number) => `10.71.0.${10 + (number % 240)}`);
      const requests = askers.map((asker) => arpRequest(guestAddress, asker));
      const answered: string[] = [];
      let waiting = 0;
      for (let number = 0; answered.length < askers.length; number++) {
        const round = pair.round(4 * roundNs, number === 0 ? requests : []);
        expectEqual(round, `round ${number}`);
        if (round.stopped[0].deliverTail !== pair.leader.port.deliver.head) waiting++;
        answered.push(...answeredAskers(round.output[0]));
        expect(number).toBeLessThan(200);
      }
      expect(waiting).toBeGreaterThan(0);
      expect(answered).toEqual(askers);
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
    });

    it('no client ever saw an error or a value that was not the last one it had written', async () => {
      expect(load).toBeDefined();
      const report = await running(load?.stop() ?? Promise.reject(new Error('No load')), () => {
        pair.round(roundNs);
      });
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(report.operations).toBeGreaterThan(rounds);
    });
  },
);

/** Runs without new frames until both guests stand idle and have nothing more to send. */
function quiesce(pair: LockstepPair): void {
  for (let quiet = 0; quiet < 4;) {
    const { stopped, output } = pair.round(roundNs, []);
    quiet = stopped[0].idle && output[0].length === 0 ? quiet + 1 : 0;
  }
}
