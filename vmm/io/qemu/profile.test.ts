import { describe, expect, it } from 'vitest';

import { machineArguments, MachineProfileError, type MachineProfile } from './profile.ts';

const withoutTap: MachineProfile = {
  machine: 'pc',
  lockstep: false,
  memoryBytes: 256 << 20,
  vcpus: 1,
  kernel: '/images/kernel',
  initrd: '/images/initrd',
  appendExtra: ['gaia.ip=10.0.0.2/24'],
  mac: '52:54:00:12:34:56',
  rtcBase: '2026-01-01T00:00:00',
  hostTscKhz: 2_600_000,
};

const profile: MachineProfile = { ...withoutTap, tapName: 'tap0' };

/** The value that follows `name`; every value of a repeated option. */
function valuesOf(name: string, changes: Partial<MachineProfile> = {}): string[] {
  const args = machineArguments({ ...profile, ...changes });
  return args.flatMap((arg, index) => (args[index - 1] === name ? [arg] : []));
}

function commandLineOf(changes: Partial<MachineProfile> = {}): string[] {
  return (valuesOf('-append', changes)[0] ?? '').split(' ');
}

describe('machine profiles', () => {
  it('guest memory is one shared memory backend of the asked size, on every machine', () => {
    for (const machine of ['pc', 'q35', 'microvm'] as const) {
      expect(valuesOf('-M', { machine })[0]).toMatch(/^(pc|q35|microvm),.*memory-backend=ram0/);
      expect(valuesOf('-object', { machine })).toEqual([
        'memory-backend-memfd,id=ram0,size=268435456,share=on',
      ]);
      expect(valuesOf('-m', { machine })).toEqual(['256M']);
    }
  });

  it('the device state carries no description and no configuration section', () => {
    for (const machine of ['pc', 'q35', 'microvm'] as const) {
      expect(valuesOf('-M', { machine })[0]).toContain('suppress-vmdesc=on');
      expect(valuesOf('-global', { machine })).toContain('migration.send-configuration=off');
    }
  });

  it('microvm has ACPI, without which it has no network card', () => {
    expect(valuesOf('-M', { machine: 'microvm' })[0]).toContain('acpi=on,pcie=off,isa-serial=on');
    expect(valuesOf('-device', { machine: 'microvm' })[0]).toMatch(/^virtio-net-device,/);
  });

  it('no processor model offers the randomness of the host', () => {
    expect(valuesOf('-cpu')).toEqual(['Nehalem-v1']);
    expect(valuesOf('-cpu', { accelerator: 'kvm' })).toEqual(['host,-rdrand,-rdseed']);
    expect(machineArguments(profile).join(' ')).not.toContain('rng');
    expect(commandLineOf()).toContain('random.trust_cpu=off');
  });

  it('lockstep leaves no clock and no thread of the host in the machine', () => {
    const pc = { lockstep: true };
    expect(valuesOf('-icount', pc)).toEqual(['shift=2,sleep=off']);
    expect(valuesOf('-icount', { ...pc, icountShift: 0 })).toEqual(['shift=0,sleep=off']);
    expect(valuesOf('-rtc', pc)).toEqual(['base=2026-01-01T00:00:00,clock=vm']);
    expect(valuesOf('-device', pc)[0]).toMatch(/,tx=timer,x-txtimer=20000,ioeventfd=off$/);
    const microvm = { lockstep: true, machine: 'microvm' } as const;
    expect(valuesOf('-device', microvm)[0]).toMatch(/,tx=timer,x-txtimer=20000$/);
    expect(valuesOf('-global', microvm)).toContain('virtio-mmio.ioeventfd=off');
  });

  it('a free-running guest has no icount and its own transmission', () => {
    expect(valuesOf('-icount')).toEqual([]);
    expect(valuesOf('-device')[0]).not.toContain('tx=');
    expect(valuesOf('-device')[0]).not.toContain('ioeventfd');
  });

  it('the counter frequency is known in lockstep, and told to a microvm where the host knows it', () => {
    const exact = ['tsc_early_khz=1000000', 'lpj=4000000'];
    expect(commandLineOf({ lockstep: true })).toEqual(expect.arrayContaining(exact));
    const microvm = commandLineOf({ machine: 'microvm' });
    expect(microvm).toEqual(expect.arrayContaining(['tsc_early_khz=2600000', 'lpj=10400000']));
    expect(commandLineOf().join(' ')).not.toContain('tsc_early_khz');
  });

  it('the card never announces itself, has no option ROM and no offloads', () => {
    const device = valuesOf('-device')[0]?.split(',') ?? [];
    expect(device).toEqual(
      expect.arrayContaining([
        'guest_announce=off',
        'romfile=',
        'csum=off',
        'gso=off',
        'mac=52:54:00:12:34:56',
      ]),
    );
  });

  it('a tap goes by name or by descriptor, without vhost in both', () => {
    expect(valuesOf('-netdev')).toEqual([
      'tap,id=net0,ifname=tap0,script=no,downscript=no,vnet_hdr=off,vhost=off',
    ]);
    const args = machineArguments({ ...withoutTap, tapFd: 7 });
    expect(args).toContain('tap,id=net0,fd=7,vhost=off');
  });

  it('words of image and operator come last, so that they win', () => {
    expect(commandLineOf().at(-1)).toBe('gaia.ip=10.0.0.2/24');
  });

  it('under KVM the guards against speculation stay on', () => {
    expect(commandLineOf()).toContain('mitigations=off');
    expect(commandLineOf({ accelerator: 'kvm' })).not.toContain('mitigations=off');
  });

  it('a disk boots without a kernel, and a comma in a path is no new option', () => {
    const disk = { kernel: null, initrd: null, disk: '/disks/a,b.raw' };
    expect(valuesOf('-blockdev', disk)[0]).toMatch(/file\.filename=\/disks\/a,,b\.raw$/);
    expect(valuesOf('-append', disk)).toEqual([]);
    expect(valuesOf('-qmp', { qmpPath: '/run/a,b' })).toEqual(['unix:/run/a,,b,server=on,wait=off']);
  });

  it('the console goes to a file, a socket or nowhere', () => {
    expect(valuesOf('-serial', { serialFile: '/log' })).toEqual(['file:/log']);
    expect(valuesOf('-serial', { serialPath: '/socket' })).toEqual(['unix:/socket,server=on,wait=off']);
    expect(valuesOf('-serial')).toEqual(['null']);
  });

  it('a line that the port holds ends in its file', () => {
    const held = { heldSerialFile: '/log' };
    expect(valuesOf('-serial', held)).toEqual(['chardev:ser0']);
    expect(valuesOf('-chardev', held)).toEqual(['file,id=con0,path=/log', 'gaia,id=ser0']);
  });

  it('a disk that fails ends the round instead of telling the guest', () => {
    const [device] = valuesOf('-device', { disk: '/disk' }).filter((value) => value.startsWith('virtio-blk'));
    expect(device).toMatch(/,rerror=stop,werror=stop(,|$)/);
  });

  it.each<[string, Partial<MachineProfile>, RegExp]>([
    ['memory of part of a MiB', { memoryBytes: 100_000_000 }, /100000000 bytes/],
    ['memory too small for a kernel', { memoryBytes: 32 << 20 }, /at least 64 MiB/],
    ['no vCPU', { vcpus: 0 }, /0 vCPUs/],
    ['lockstep with two vCPUs', { lockstep: true, vcpus: 2 }, /one vCPU/],
    ['lockstep under KVM', { lockstep: true, accelerator: 'kvm' }, /KVM cannot/],
    ['an impossible icount shift', { lockstep: true, icountShift: 11 }, /icount shift of 11/],
    ['nothing to boot', { kernel: null }, /give a kernel or a disk/],
    ['two taps', { tapFd: 3 }, /one tap/],
    ['a group address as MAC', { mac: '01:00:5e:00:00:01' }, /01:00:5e/],
    ['a malformed MAC', { mac: '52:54' }, /"52:54"/],
    ['a clock start with options in it', { rtcBase: '2026-01-01,clock=host' }, /clock=host/],
    ['an endless kernel command line', { appendExtra: ['x'.repeat(3000)] }, /shorten it/],
  ])('%s is refused with what to change', (_what, changes, message) => {
    expect(() => machineArguments({ ...profile, ...changes })).toThrow(MachineProfileError);
    expect(() => machineArguments({ ...profile, ...changes })).toThrow(message);
  });

  it('a free-running microvm that is not told the counter frequency is refused, other guests need none', () => {
    const { hostTscKhz: frequency, ...untold } = profile;
    expect(frequency).toBe(2_600_000);
    expect(() => machineArguments({ ...untold, machine: 'microvm' })).toThrow(/give hostTscKhz/);
    for (const changes of [{ lockstep: true }, { accelerator: 'kvm' }] as const) {
      expect(() => machineArguments({ ...untold, machine: 'microvm', ...changes })).not.toThrow();
    }
    expect(() => machineArguments(untold)).not.toThrow();
  });

  it('a guest without a tap is refused', () => {
    expect(() => machineArguments(withoutTap)).toThrow(/one tap/);
  });
});
