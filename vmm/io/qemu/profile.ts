/**
 * Turns a few decisions about a VM into the arguments of its QEMU. Pure: it reads and opens nothing.
 * Guarantee: two replicas given the same profile get machines of equal shape, and in lockstep machines whose
 * execution is a function of their inputs: no source of time, order or randomness of the host is left in.
 */

import { GaiaError } from '../../core/errors.ts';

export type Machine = 'pc' | 'q35' | 'microvm';

export interface MachineProfile {
  readonly machine: Machine;
  /** TCG unless given. */
  readonly accelerator?: 'tcg' | 'kvm';
  /** Bit-equal execution by instruction counting; one vCPU under TCG only. */
  readonly lockstep: boolean;
  /** Virtual nanoseconds of one instruction are 2 to the power of this; 2 unless given, lockstep only. */
  readonly icountShift?: number;
  readonly memoryBytes: number;
  readonly vcpus: number;
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** A raw disk of whole 4 KiB pages. */
  readonly disk?: string | null;
  /** Words of the image and of the operator for the kernel command line. */
  readonly appendExtra: readonly string[];
  readonly mac: string;
  /** Exactly one of the two: a tap that the agent has opened (without IFF_VNET_HDR), or the name of one. */
  readonly tapFd?: number;
  readonly tapName?: string;
  /** What the guest's clock shows at power-on, as YYYY-MM-DDTHH:MM:SS in UTC. */
  readonly rtcBase: string;
  /** Unix socket that QEMU listens on. */
  readonly qmpPath?: string;
  /** The serial console goes to a file or to a Unix socket that QEMU listens on, else nowhere. */
  readonly serialFile?: string;
  readonly serialPath?: string;
  /** Goes here instead once the agent has released it; the gaia port must name `heldConsole` as its console. */
  readonly heldSerialFile?: string;
  /** Frequency of the host's time stamp counter, which a free-running microvm under TCG must be told. */
  readonly hostTscKhz?: number;
  /** Searched for firmware before the folders built into QEMU. */
  readonly firmwareFolders?: readonly string[];
}

export class MachineProfileError extends GaiaError {
  constructor(message: string) {
    super('GAIA_MACHINE_PROFILE', message);
  }
}

const mebibyte = 1 << 20;
const icountShiftMax = 10;
export const vcpusMax = 255;
const kernelCommandLineBytesMax = 2047;
/** Under icount the guest's time stamp counter counts virtual nanoseconds. */
const icountTscKhz = 1_000_000;
/** CONFIG_HZ of Debian's kernels; loops per jiffy follow from it. */
const kernelTicksPerSecond = 250;
/** How long a transmitted frame may wait for others, in virtual nanoseconds; any fixed value is exact. */
const transmitTimerNs = 20_000;

/** The character device for what the guest said on its serial line, where that is held. */
export const heldConsole = 'con0';

/** Throws MachineProfileError, which says what to change, where the decisions contradict each other. */
export function machineArguments(profile: MachineProfile): string[] {
  refuseContradictions(profile);
  return [
    '-nodefaults',
    '-no-user-config',
    ...['-display', 'none'],
    ...(profile.firmwareFolders ?? []).flatMap((folder) => ['-L', folder]),
    ...machineAndMemory(profile),
    ...processor(profile),
    ...clocks(profile),
    ...kernel(profile),
    ...network(profile),
    ...disk(profile),
    ...consoles(profile),
  ];
}

function refuseContradictions(profile: MachineProfile): void {
  const { memoryBytes, vcpus, lockstep, icountShift = 2 } = profile;
  if (!Number.isSafeInteger(memoryBytes) || memoryBytes < 64 * mebibyte || memoryBytes % mebibyte !== 0) {
    throw new MachineProfileError(
      `Guest memory of ${memoryBytes} bytes cannot be used: give whole MiB, at least 64 MiB`,
    );
  }
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > vcpusMax) {
    throw new MachineProfileError(`${vcpus} vCPUs are not possible: give 1 to ${vcpusMax}`);
  }
  if (lockstep && vcpus !== 1) {
    throw new MachineProfileError(
      `Lockstep runs one vCPU, not ${vcpus}: give one vCPU or choose another execution mode`,
    );
  }
  if (lockstep && profile.accelerator === 'kvm') {
    throw new MachineProfileError(
      'Lockstep counts instructions, which KVM cannot: choose TCG or another mode',
    );
  }
  if (!Number.isInteger(icountShift) || icountShift < 0 || icountShift > icountShiftMax) {
    throw new MachineProfileError(`An icount shift of ${icountShift} is not possible: give 0 to 10`);
  }
  if (needsHostTsc(profile) && profile.hostTscKhz === undefined) {
    throw new MachineProfileError(
      'A free-running microvm may hang at its start unless told the frequency of the host clock: give hostTscKhz',
    );
  }
  if (profile.kernel === null && (profile.disk ?? null) === null) {
    throw new MachineProfileError('Nothing to boot: give a kernel or a disk');
  }
  if ((profile.tapFd === undefined) === (profile.tapName === undefined)) {
    throw new MachineProfileError('The guest has one network card: give one tap, by descriptor or by name');
  }
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i.test(profile.mac) || (parseInt(profile.mac, 16) & 1) === 1) {
    throw new MachineProfileError(`"${profile.mac}" is not the MAC address of one machine: give six pairs`);
  }
  if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}$/.test(profile.rtcBase)) {
    throw new MachineProfileError(
      `"${profile.rtcBase}" is not a start of the guest clock: give YYYY-MM-DDTHH:MM:SS`,
    );
  }
}

/** Guest memory is a memfd that the agent maps too; the device state must not describe itself in words. */
function machineAndMemory(profile: MachineProfile): string[] {
  const options = {
    pc: 'pc,usb=off,vmport=off',
    q35: 'q35,usb=off,vmport=off',
    // Without ACPI microvm has no network card; its PCIe bus would bring nothing but state.
    microvm: 'microvm,acpi=on,pcie=off,isa-serial=on',
  }[profile.machine];
  const machine = `${options},memory-backend=ram0,suppress-vmdesc=on,mem-merge=off,dump-guest-core=off`;
  return [
    ...['-M', machine],
    ...['-object', `memory-backend-memfd,id=ram0,size=${profile.memoryBytes},share=on`],
    ...['-m', `${profile.memoryBytes / mebibyte}M`],
    ...['-global', 'migration.send-configuration=off'],
    // A sleeping guest would stop its clock in a way that rounds know nothing of.
    ...{
      pc: ['-global', 'PIIX4_PM.disable_s3=1', '-global', 'PIIX4_PM.disable_s4=1'],
      q35: ['-global', 'ICH9-LPC.disable_s3=1', '-global', 'ICH9-LPC.disable_s4=1'],
      microvm: ['-global', 'virtio-mmio.force-legacy=false'],
    }[profile.machine],
  ];
}

/** rdrand and rdseed would take the randomness of one host into the guest, so no model here has them. */
function processor(profile: MachineProfile): string[] {
  const kvm = profile.accelerator === 'kvm';
  // Measured: of the models with SSE 4.2 this one boots fastest under TCG. The version keeps TCG from being
  // asked for speculation control, which it lacks.
  const model = kvm ? 'host,-rdrand,-rdseed' : 'Nehalem-v1';
  return [
    // The translation cache of a guest is far below QEMU's default of 1 GiB, and three replicas share a host.
    ...['-accel', kvm ? 'kvm' : 'tcg,tb-size=256'],
    ...['-cpu', model],
    ...['-smp', String(profile.vcpus)],
  ];
}

function clocks(profile: MachineProfile): string[] {
  const rtc = ['-rtc', `base=${profile.rtcBase},clock=vm`];
  // With sleep=on, and with shift=auto, the host's clock decides when guest timers fire.
  return profile.lockstep ? [...rtc, '-icount', `shift=${profile.icountShift ?? 2},sleep=off`] : rtc;
}

function kernel(profile: MachineProfile): string[] {
  if (profile.kernel === null) return [];
  const commandLine = kernelCommandLine(profile).join(' ');
  if (Buffer.byteLength(commandLine) > kernelCommandLineBytesMax) {
    throw new MachineProfileError(
      `The kernel command line has ${Buffer.byteLength(commandLine)} bytes: shorten it to ${kernelCommandLineBytesMax}`,
    );
  }
  return [
    ...['-kernel', profile.kernel],
    ...(profile.initrd === null ? [] : ['-initrd', profile.initrd]),
    ...['-append', commandLine],
  ];
}

function kernelCommandLine(profile: MachineProfile): string[] {
  const tcg = profile.accelerator !== 'kvm';
  return [
    'console=ttyS0',
    '8250.nr_uarts=1',
    'quiet',
    'panic=-1',
    'random.trust_cpu=off',
    'no_timer_check',
    // A paused guest is no sick guest: neither its watchdogs nor its clock checks may say so.
    'nowatchdog',
    'rcupdate.rcu_cpu_stall_suppress=1',
    // Under TCG there is no speculation to guard against, and the host's own guards stay in force.
    ...(tcg ? ['tsc=reliable', 'mitigations=off'] : []),
    ...(profile.machine === 'microvm' ? ['pci=off'] : []),
    ...timeStampCounter(profile),
    ...profile.appendExtra,
  ];
}

/**
 * microvm has only the PIT to measure the time stamp counter with. On a busy host that fails, and the guest
 * hangs before its first message (measured: 4 of 6 starts at a load of 4 per core, 0 of 8 when told).
 */
function needsHostTsc(profile: MachineProfile): boolean {
  return profile.machine === 'microvm' && profile.accelerator !== 'kvm' && !profile.lockstep;
}

/** In lockstep the frequency is known exactly, so measuring it would only cost time. */
function timeStampCounter(profile: MachineProfile): string[] {
  const khz = profile.lockstep ? icountTscKhz : needsHostTsc(profile) ? profile.hostTscKhz : undefined;
  if (khz === undefined) return [];
  return [`tsc_early_khz=${khz}`, `lpj=${Math.floor((khz * 1000) / kernelTicksPerSecond)}`];
}

/** Checksum and segmentation offloads wait until frames are logged with their virtio headers. */
const offloads = [
  ...['csum', 'gso', 'host_tso4', 'host_tso6', 'host_ecn', 'host_ufo'],
  ...['guest_csum', 'guest_tso4', 'guest_tso6', 'guest_ecn', 'guest_ufo', 'ctrl_guest_offloads'],
];

function network(profile: MachineProfile): string[] {
  const tap =
    profile.tapFd === undefined
      ? `ifname=${option(profile.tapName ?? '')},script=no,downscript=no,vnet_hdr=off`
      : `fd=${profile.tapFd}`;
  const pci = profile.machine !== 'microvm';
  const device = [
    pci ? 'virtio-net-pci' : 'virtio-net-device',
    'id=nic0',
    'netdev=net0',
    `mac=${profile.mac}`,
    // Otherwise every load of device state makes the guest announce itself, on one side only.
    'guest_announce=off',
    ...offloads.map((name) => `${name}=off`),
    ...(pci ? ['romfile='] : []),
    // Transmission at a virtual instant, and in the vCPU's own order instead of a host thread's.
    ...(profile.lockstep ? ['tx=timer', `x-txtimer=${transmitTimerNs}`] : []),
    ...(profile.lockstep && pci ? ['ioeventfd=off'] : []),
  ];
  return [
    ...(profile.lockstep && !pci ? ['-global', 'virtio-mmio.ioeventfd=off'] : []),
    ...['-netdev', `tap,id=net0,${tap},vhost=off`],
    ...['-device', device.join(',')],
  ];
}

function disk(profile: MachineProfile): string[] {
  const file = profile.disk ?? null;
  if (file === null) return [];
  const pci = profile.machine !== 'microvm';
  const device = [
    pci ? 'virtio-blk-pci' : 'virtio-blk-device',
    'id=blk0',
    'drive=disk0',
    // An error of one host's disk is no input of the guest: the round ends, and the request is tried again.
    ...['rerror=stop', 'werror=stop'],
    ...(profile.kernel === null && pci ? ['bootindex=0'] : []),
    ...(profile.lockstep && pci ? ['ioeventfd=off'] : []),
  ];
  return [
    ...['-blockdev', `driver=raw,node-name=disk0,file.driver=file,file.filename=${option(file)}`],
    ...['-device', device.join(',')],
  ];
}

function consoles(profile: MachineProfile): string[] {
  const { qmpPath } = profile;
  return [
    ...serialLine(profile),
    ...(qmpPath === undefined ? [] : ['-qmp', `unix:${option(qmpPath)},server=on,wait=off`]),
  ];
}

function serialLine({ serialFile, serialPath, heldSerialFile }: MachineProfile): string[] {
  if (heldSerialFile !== undefined)
    return [
      ...['-chardev', `file,id=${heldConsole},path=${option(heldSerialFile)}`],
      ...['-chardev', 'gaia,id=ser0'],
      ...['-serial', 'chardev:ser0'],
    ];
  if (serialFile !== undefined) return ['-serial', `file:${serialFile}`];
  if (serialPath !== undefined) return ['-serial', `unix:${option(serialPath)},server=on,wait=off`];
  return ['-serial', 'null'];
}

/** A comma ends an option's value unless it is doubled. */
function option(value: string): string {
  return value.replaceAll(',', ',,');
}
