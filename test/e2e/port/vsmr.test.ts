/**
 * The port under the proposal's own mode: two guests run freely on the same frames and are equal again, byte by byte,
 * after each round.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../../images/index.ts';
import { native } from '../../../native/binding.ts';
import { stopReason } from '../../../vmm/io/qemu/layout.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import { LiveService, services, serveRound } from '../../framework/live-service.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { VsmrPair } from '../../framework/vsmr-pair.ts';

const rounds = 500;
const warmingRounds = 100;
const roundNs = 20_000_000;

const kinds = [
  { machine: 'microvm', vcpus: 1 },
  { machine: 'microvm', vcpus: 2 },
  { machine: 'pc', vcpus: 1 },
  { machine: 'pc', vcpus: 2 },
] as const satisfies readonly { machine: Machine; vcpus: number }[];

describe.each(kinds)('two free guests on a $machine with $vcpus vCPUs', ({ machine, vcpus }) => {
  describeInLab('that serve redis to live clients', (lab) => {
    let service: LiveService;
    let pair: VsmrPair;

    beforeAll(async () => {
      const profile = { machine, vcpus, lockstep: false, hostTscKhz: native().tscKhz() };
      service = await LiveService.start(lab, 'leader', services.redis, profile, roundNs);
      for (let round = 0; round < warmingRounds; round++) serveRound(service.guest, roundNs);
      const backup = lab.startImage('backup', await findImage('redis'), profile);
      pair = VsmrPair.clone(service.guest, backup);
    });

    it(`are equal in every byte of every block after each of ${rounds} rounds`, () => {
      const sums = { frames: 0, sent: 0, backupSent: 0, quiet: 0, union: 0, divergent: 0 };
      for (let number = 1; number <= rounds; number++) {
        const round = pair.round(roundNs);
        expect(differingPages(pair.leader.port, pair.backup.port), `round ${number}`).toEqual([]);
        sums.frames += round.frames;
        sums.sent += round.sent[0];
        sums.backupSent += round.sent[1];
        if (round.stopped.every(({ reason }) => reason === stopReason.idle)) sums.quiet++;
        sums.union += round.union;
        sums.divergent += round.divergent;
      }
      console.log(`${machine}, ${vcpus} vCPUs: ${JSON.stringify(sums)}`);
      // Otherwise the comparisons prove nothing.
      expect(sums.frames).toBeGreaterThan(rounds);
      expect(sums.sent).toBeGreaterThan(rounds);
      expect(sums.backupSent).toBeGreaterThan(rounds);
      expect(sums.quiet).toBeGreaterThan(rounds / 2);
      expect(sums.divergent).toBeGreaterThan(rounds);
    });

    it('and their clients see no error and no wrong value', async () => {
      const report = await service.stop(() => void pair.round(roundNs));
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(report.operations).toBeGreaterThan(rounds);
    });
  });
});
