/**
 * Finds out whether KVM really runs guests here, by running one. A device that opens proves little: a KVM
 * without hardware virtualization answers every ioctl and runs 16-bit code, and 64-bit kernels hang in it.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

export interface KvmProbe {
  readonly device: 'absent' | 'forbidden' | 'opens';
  /** The processor's flag for hardware virtualization. */
  readonly cpuFlag: 'svm' | 'vmx' | undefined;
  /** The last mode the test guest reported from; undefined when it was not run. */
  readonly reached: 'nothing' | 'real mode' | '64-bit mode' | undefined;
  /** Whether ordinary Linux guests may be entrusted to it. */
  readonly usable: boolean;
  /** One clause that tells why, or why not. */
  readonly reason: string;
}

export interface KvmProbeOptions {
  /** The QEMU to run the guest in. */
  readonly qemuFile: string | undefined;
  readonly device?: string;
  /** How long the guest may take; on a working KVM it takes a hundredth of that. */
  readonly timeoutMs?: number;
}

/**
 * The guest, entered at f000:f000 from the reset vector. It prints R on the debug port, maps the first 2 MiB
 * one to one, switches to 64-bit mode, prints L there and leaves with 42.
 */
const guestCode = [
  'fa bae900 b052 ee', //           cli; mov dx,0xe9; mov al,'R'; out dx,al
  '31c0 8ec0 66bf00100000', //      xor ax,ax; mov es,ax; mov edi,0x1000
  '0f22df', //                      mov cr3,edi
  '6631c0 66b9000c0000', //         xor eax,eax; mov ecx,3072
  'fc 6766f3ab 8ed8', //            cld; rep stosd; mov ds,ax
  'c70600100320', //                mov word [0x1000],0x2003
  'c70600200330', //                mov word [0x2000],0x3003
  'c70600308300', //                mov word [0x3000],0x0083: a large page
  '0f20e0 0c20 0f22e0', //          cr4.PAE = 1
  '66b9800000c0 0f32 80cc01 0f30', // EFER.LME = 1
  '2e660f011688f0', //              lgdt [cs:0xf088]
  '0f20c0 660d01000080 0f22c0', //  cr0.PG = cr0.PE = 1
  '66ea66f00f000800', //            jmp 0x08:0xff066
  '66bae900 b04c ee', //            (64-bit) mov dx,0xe9; mov al,'L'; out dx,al
  'b02a 66baf400 ee', //            mov al,42; mov dx,0xf4; out dx,al
  'f4 ebfd 90', //                  hlt; jmp back; nop
  '0000000000000000 00000000009a2000', // GDT: null, 64-bit code
  '0f00 78f00f00', //               GDT register: limit 15, base 0xff078
].join('');

const guestEntry = 0xf000;
const resetVector = 0xfff0;
/** What the debug-exit device makes of 42. */
const exitCodeOfSuccess = (42 << 1) | 1;

/** The guest as a 64 KiB firmware image. */
function probeFirmware(): Buffer {
  const firmware = Buffer.alloc(65_536, 0xf4);
  firmware.set(Buffer.from(guestCode.replaceAll(' ', ''), 'hex'), guestEntry);
  firmware.set(Buffer.from('ea00f000f0', 'hex'), resetVector);
  return firmware;
}

/** Looks at the device and the processor, and runs the guest when there is a QEMU. */
export async function probeKvm(options: KvmProbeOptions): Promise<KvmProbe> {
  const device = openDevice(options.device ?? '/dev/kvm');
  const cpuFlag = virtualizationFlag(readFileSync('/proc/cpuinfo', 'utf8'));
  if (device !== 'opens') {
    const reason = device === 'absent' ? 'there is no /dev/kvm' : 'this user may not open /dev/kvm';
    return { device, cpuFlag, reached: undefined, usable: false, reason };
  }
  const reached =
    options.qemuFile === undefined ? undefined : await runGuest(options.qemuFile, 'kvm', options.timeoutMs);
  return { device, cpuFlag, reached, ...judge(cpuFlag, reached) };
}

function judge(
  cpuFlag: KvmProbe['cpuFlag'],
  reached: KvmProbe['reached'],
): Pick<KvmProbe, 'usable' | 'reason'> {
  const flag =
    cpuFlag === undefined ? 'the processor shows neither svm nor vmx' : `the processor has ${cpuFlag}`;
  switch (reached) {
    case undefined:
      return { usable: false, reason: `${flag}; no guest was tried, as there is no QEMU yet` };
    case 'nothing':
      return { usable: false, reason: `the test guest ran no instruction; ${flag}` };
    case 'real mode':
      return { usable: false, reason: `the test guest hung on its way to 64-bit mode; ${flag}` };
    case '64-bit mode':
      return { usable: cpuFlag !== undefined, reason: `the test guest reached 64-bit mode; ${flag}` };
  }
}

/** Runs the guest under an accelerator and tells how far it came. */
export async function runGuest(
  qemuFile: string,
  accelerator: 'kvm' | 'tcg',
  timeoutMs = 2000,
): Promise<NonNullable<KvmProbe['reached']>> {
  const folder = mkdtempSync(join(tmpdir(), 'gaia-probe-'));
  try {
    const firmware = join(folder, 'firmware');
    writeFileSync(firmware, probeFirmware());
    const result = await execa(
      'setpriv',
      ['--pdeathsig', 'KILL', '--', qemuFile, '-accel', accelerator, '-machine', 'pc', '-m', '16'].concat(
        ['-nodefaults', '-no-user-config', '-display', 'none', '-bios', firmware],
        ['-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
        ['-chardev', 'stdio,id=debug,signal=off', '-device', 'isa-debugcon,iobase=0xe9,chardev=debug'],
      ),
      { reject: false, stdin: 'ignore', timeout: timeoutMs, killSignal: 'SIGKILL' },
    );
    if (result.exitCode === exitCodeOfSuccess && result.stdout === 'RL') return '64-bit mode';
    return result.stdout.startsWith('R') ? 'real mode' : 'nothing';
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function openDevice(path: string): KvmProbe['device'] {
  try {
    closeSync(openSync(path, 'r+'));
    return 'opens';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EACCES' || code === 'EPERM' ? 'forbidden' : 'absent';
  }
}

function virtualizationFlag(cpuinfo: string): KvmProbe['cpuFlag'] {
  const flags = cpuFlags(cpuinfo);
  if (flags.has('vmx')) return 'vmx';
  return flags.has('svm') ? 'svm' : undefined;
}

/** The feature flags of the first processor that /proc/cpuinfo describes. */
export function cpuFlags(cpuinfo: string): ReadonlySet<string> {
  return new Set((/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? '').split(' '));
}
