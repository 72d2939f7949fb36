import { expect, it } from 'vitest';
import { judgeExecution } from './execution-choice.ts';

const usable = { usable: true, reason: 'it ran a guest' };
const useless = { usable: false, reason: 'the guest hung' };
const auto = { mode: undefined, accelerator: 'auto', vcpus: 1 } as const;

it('free-running guests where KVM runs guests, lockstep under TCG, and the reason is told', () => {
  expect(judgeExecution(auto, usable)).toMatchObject({ mode: 'vsmr', accelerator: 'kvm' });
  expect(judgeExecution(auto, useless)).toEqual({
    mode: 'lockstep',
    accelerator: 'tcg',
    reason: 'the guest hung',
  });
  expect(judgeExecution({ ...auto, vcpus: 2 }, useless)).toMatchObject({ mode: 'vsmr', accelerator: 'tcg' });
});

it('what was asked for is done, on the best accelerator that can', () => {
  expect(judgeExecution({ ...auto, mode: 'lockstep' }, usable)).toMatchObject({ accelerator: 'tcg' });
  expect(judgeExecution({ ...auto, mode: 'checkpoint' }, usable)).toMatchObject({ accelerator: 'kvm' });
  expect(judgeExecution({ ...auto, accelerator: 'tcg', mode: 'vsmr' }, undefined)).toMatchObject({
    mode: 'vsmr',
    accelerator: 'tcg',
  });
});

it('what cannot be is refused by name', () => {
  expect(() => judgeExecution({ ...auto, mode: 'lockstep', vcpus: 2 }, useless)).toThrow(/one vCPU, not 2/);
  expect(() => judgeExecution({ ...auto, mode: 'lockstep', accelerator: 'kvm' }, usable)).toThrow(/counts/);
  expect(() => judgeExecution({ ...auto, accelerator: 'kvm' }, useless)).toThrow(/the guest hung/);
  expect(() => judgeExecution({ ...auto, vcpus: 0 }, useless)).toThrow(/--vcpus 1 to/);
});
