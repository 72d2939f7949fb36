/** The oracle of lockstep for more than one kind of service: no page differs, whatever the guests compute. */
import { beforeAll, describe, expect, it } from 'vitest';
import { findImage } from '../../../images/index.ts';
import type { Machine } from '../../../vmm/io/qemu/profile.ts';
import { LiveService, services, serveRound } from '../../framework/live-service.ts';
import { LockstepChecker } from '../../framework/lockstep-checker.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const rounds = 500;
const comparedEveryRounds = 10;
const warmingRounds = 200;
/** A multiple of no period in the guest, so that rounds end anywhere in it. */
const roundNs = 990_001;

const kinds = [
  { name: 'redis', machine: 'microvm' },
  { name: 'redis', machine: 'pc' },
  { name: 'nginx', machine: 'microvm' },
  { name: 'nginx', machine: 'pc' },
] as const satisfies readonly { name: keyof typeof services; machine: Machine }[];

describe.each(kinds)('two guests on a $machine that serve $name', ({ name, machine }) => {
  describeInLab('to live clients', (lab) => {
    let service: LiveService;
    let pair: LockstepPair;

    beforeAll(async () => {
      service = await LiveService.start(lab, 'leader', services[name], { machine }, roundNs);
      for (let round = 0; round < warmingRounds; round++) serveRound(service.guest, roundNs);
      const backup = lab.startImage('backup', await findImage(services[name].image), { machine });
      pair = LockstepPair.clone(service.guest, backup);
    });

    it(`send the same frames and differ in no page over ${rounds} rounds`, () => {
      const checker = new LockstepChecker(pair);
      while (checker.rounds < rounds) {
        checker.round(roundNs);
        if (checker.rounds % comparedEveryRounds === 0) checker.compareAll();
      }
      console.log(
        `${name} on ${machine}: ${checker.frames} frames in, ${checker.outputFrames} out, ` +
          `${checker.pages.dirty} dirty pages, ${checker.pages.changed} changed, ${checker.findings.length} findings`,
      );
      expect(checker.findings).toEqual([]);
      // Otherwise the comparisons prove nothing.
      expect(checker.frames).toBeGreaterThan(rounds);
      expect(checker.outputFrames).toBeGreaterThan(rounds);
      expect(checker.pages.changed).toBeGreaterThan(rounds);
    });

    it('and their clients see no error and no wrong value', async () => {
      const report = await service.stop(() => void pair.round(roundNs));
      expect(report.errors).toEqual([]);
      expect(report.wrongValues).toEqual([]);
      expect(report.operations).toBeGreaterThan(rounds);
    });
  });
});
