/** The promise that everything later rests on: two guests with the same inputs are the same, byte by byte. */
import { beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../../images/index.ts';
import { entryKind } from '../../../vmm/io/qemu/layout.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import { LiveService, services, serveRound } from '../../framework/live-service.ts';
import { LockstepPair, type PairRound } from '../../framework/lockstep-pair.ts';
import { LockstepChecker } from '../../framework/lockstep-checker.ts';
import { guestAddress } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const rounds = 500;
const comparedEveryRounds = 10;
const clones = 12;
const roundsBetweenClones = 40;
const warmingRounds = 500;
const roundNs = 250_000;
/** One instruction, at the profile's icount shift. */
const instructionNs = 4;

function expectEqual(round: PairRound, which: string): void {
  expect(round.stopped[1], which).toEqual(round.stopped[0]);
  expect(round.output[1], which).toEqual(round.output[0]);
}

/** Who was answered in `output`, in order. */
function answeredAskers(output: readonly string[]): string[] {
  return output.flatMap((frame) => arpAsker(Buffer.from(frame, 'hex'), guestAddress) ?? []);
}

describe.each<Machine>(['pc', 'microvm'])('two guests on a %s', (machine) => {
  describeInLab('that serve memcached to live clients', (lab) => {
    let service: LiveService;
    let pair: LockstepPair;

    beforeAll(async () => {
      service = await LiveService.start(lab, 'leader', services.memcached, { machine }, roundNs);
      for (let round = 0; round < warmingRounds; round++) serveRound(service.guest, roundNs);
      const backup = lab.startImage('backup', await findImage('memcached'), { machine });
      pair = LockstepPair.clone(service.guest, backup);
    });

    it(`over ${rounds} rounds they stop and send alike and what they write is equal, every tenth finds each block byte-equal, and no page that changed is missing in the dirty bitmaps`, () => {
      const checker = new LockstepChecker(pair);
      while (checker.rounds < rounds) {
        checker.round(roundNs);
        if (checker.rounds % comparedEveryRounds === 0) checker.compareAll();
      }
      expect(checker.findings).toEqual([]);
      // Otherwise the comparisons prove nothing.
      expect(checker.frames).toBeGreaterThan(rounds);
      expect(checker.outputFrames).toBeGreaterThan(rounds);
      expect(checker.pages.changed).toBeGreaterThan(rounds);
      expect(checker.pages.dirty).toBeGreaterThanOrEqual(checker.pages.changed);
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
      const report = await service.stop(() => void pair.round(roundNs));
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(report.operations).toBeGreaterThan(rounds);
    });

    // Last, since they are no pair afterwards.
    it('a frame that only one of them gets is found in the very round, and so is a byte that nobody wrote', () => {
      const checker = new LockstepChecker(pair);
      expect(checker.findings).toEqual([]);
      const bytes = Buffer.from(pair.backup.port.blocks[0]?.memory ?? new ArrayBuffer());
      bytes.writeUInt8(bytes.readUInt8(0x5000) ^ 1, 0x5000);
      checker.compareAll();
      // It differs, and the backup's bitmap knows nothing of it.
      expect(checker.findings).toEqual([
        expect.stringMatching(/^after round 0: .*\+0x5000 \(1 in all\)$/),
        expect.stringMatching(/missing in the backup's bitmap: .*\+0x5000 \(1 in all\)$/),
      ]);
      bytes.writeUInt8(bytes.readUInt8(0x5000) ^ 1, 0x5000);
      pair.backup.port.deliver.push(entryKind.frame, arpRequest(guestAddress, '10.71.0.79'));
      checker.round(roundNs);
      expect(checker.findings.filter((text) => text.startsWith('round 1: ')).length).toBeGreaterThan(0);
    });
  });
});

/** Runs without new frames until both guests stand idle and have nothing more to send. */
function quiesce(pair: LockstepPair): void {
  for (let quiet = 0; quiet < 4;) {
    const { stopped, output } = pair.round(roundNs, []);
    quiet = stopped[0].idle && output[0].length === 0 ? quiet + 1 : 0;
  }
}
