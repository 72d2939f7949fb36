import { expect, test } from 'vitest';
import { probeKvm, runGuest } from '../../vmm/io/kvm-probe.ts';
import { qemuBinary } from '../framework/qemu-binary.ts';

test('the probe guest reaches 64-bit mode where guests work: under TCG', async () => {
  await expect(runGuest(qemuBinary(), 'tcg', 20_000)).resolves.toBe('64-bit mode');
});

test('a machine without the device is told apart from one where guests hang', async () => {
  const absent = await probeKvm({ qemuFile: qemuBinary(), device: '/nonexistent/kvm' });
  expect(absent).toMatchObject({ device: 'absent', reached: undefined, usable: false });
  expect(absent.reason).toBe('there is no /dev/kvm');
});

test('KVM is called usable only when the guest got through and the processor has the flag', async () => {
  const probe = await probeKvm({ qemuFile: qemuBinary() });
  expect(probe.usable).toBe(probe.reached === '64-bit mode' && probe.cpuFlag !== undefined);
});
