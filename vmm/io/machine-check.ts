/**
 * Looks at everything on this machine that a protected VM needs and names what is missing. A *blocker* keeps
 * VMs from starting; a *limit* lets them run, slower or fewer. Nothing is changed on the machine.
 */
import { closeSync, existsSync, openSync, readFileSync, statfsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { GaiaError } from '../core/errors.ts';
import { folders, type Folders } from './folders.ts';
import { cpuFlags, probeKvm } from './kvm-probe.ts';
import { requireQemu, type InstalledQemu, type RequireOptions } from './qemu/installed.ts';

export type Verdict = 'ok' | 'limit' | 'blocker';

export interface CheckLine {
  /** Stable, for scripts. */
  readonly name: string;
  readonly verdict: Verdict;
  /** What was found, with units. */
  readonly value: string;
  /** What to do about it; absent when all is well. */
  readonly remedy?: string;
}

export interface MachineCheckOptions {
  readonly folders?: Folders;
  readonly qemu?: RequireOptions;
}

const mebibyte = 2 ** 20;

/** The version that package.json asks for. */
const nodeVersionMin: readonly [number, number] = [20, 19];
/** Two guests of 256 MiB, three agents; below that the kernel kills one of them. */
const memoryBytesMin = 1024 * mebibyte;
const memoryBytesComfortable = 2048 * mebibyte;
/** Logs and checkpoints of one small VM. */
const stateBytesMin = 512 * mebibyte;
const stateBytesComfortable = 4096 * mebibyte;
/** What a build of QEMU and of one image needs for a while. */
const cacheBytesBuilding = 1024 * mebibyte;
const cacheBytesMin = 64 * mebibyte;
/** An RDMA card pins the guest's memory; the transport within one machine pins nothing. */
const lockedBytesComfortable = 1024 * mebibyte;
const firmwareFiles = [
  { file: '/usr/share/seabios/bios-256k.bin', package: 'seabios' },
  { file: '/usr/share/seabios/bios-microvm.bin', package: 'seabios' },
  { file: '/usr/share/qemu/linuxboot_dma.bin', package: 'qemu-system-data' },
] as const;

/** All lines, in the order in which a person reads them. */
export async function checkMachine(options: MachineCheckOptions = {}): Promise<CheckLine[]> {
  const place = options.folders ?? folders();
  const { line: qemuLine, qemu } = await checkQemu({ cacheFolder: place.cache, ...options.qemu });
  return [
    checkNode(process.versions.node),
    checkCores(availableParallelism()),
    ...(await checkKvm(qemu)),
    checkTun('/dev/net/tun'),
    checkPrivilege(readFileSync('/proc/self/status', 'utf8')),
    checkMemory(readFileSync('/proc/meminfo', 'utf8')),
    checkLockedMemory(readFileSync('/proc/self/limits', 'utf8')),
    checkDisk('cache disk', place.cache, qemu === undefined ? cacheBytesBuilding : cacheBytesMin, 0),
    checkDisk('state disk', place.state, stateBytesMin, stateBytesComfortable),
    qemuLine,
    checkFirmware(),
    checkHashing(cpuFlags(readFileSync('/proc/cpuinfo', 'utf8'))),
  ];
}

export function checkNode(version: string): CheckLine {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [majorMin, minorMin] = nodeVersionMin;
  const old = major < majorMin || (major === majorMin && minor < minorMin);
  return {
    name: 'node',
    verdict: old ? 'blocker' : 'ok',
    value: version,
    ...(old ? { remedy: `install Node.js ${majorMin}.${minorMin} or newer` } : {}),
  };
}

function checkCores(count: number): CheckLine {
  if (count >= 2) return { name: 'cores', verdict: 'ok', value: `${count}` };
  return {
    name: 'cores',
    verdict: 'limit',
    value: `${count}`,
    remedy: 'give the machine two cores or more: guest and agents take turns on one',
  };
}

async function checkKvm(qemu: InstalledQemu | undefined): Promise<CheckLine[]> {
  const probe = await probeKvm({ qemuFile: qemu?.file });
  const remedies = {
    absent:
      'enable virtualization in the firmware, or nested virtualization in the host, and load kvm_intel or kvm_amd',
    forbidden: 'run as root, or add this user to the group kvm',
    opens: undefined,
  };
  const deviceRemedy = remedies[probe.device];
  const slow = 'guests run without it (TCG), about ten times slower';
  return [
    {
      name: 'kvm device',
      verdict: probe.device === 'opens' ? 'ok' : 'limit',
      value: probe.device === 'opens' ? '/dev/kvm opens' : `/dev/kvm is ${probe.device}`,
      ...(deviceRemedy === undefined ? {} : { remedy: deviceRemedy }),
    },
    {
      name: 'kvm for linux guests',
      verdict: probe.usable ? 'ok' : 'limit',
      value: probe.reason,
      ...(probe.usable ? {} : { remedy: `use a machine with hardware virtualization; ${slow}` }),
    },
  ];
}

export function checkTun(path: string): CheckLine {
  try {
    closeSync(openSync(path, 'r+'));
    return { name: 'tun', verdict: 'ok', value: `${path} opens` };
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException;
    const missing = code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO';
    return {
      name: 'tun',
      verdict: 'blocker',
      value: `${path} does not open (${code})`,
      remedy: missing
        ? 'run "modprobe tun"; in a container, start it with --device /dev/net/tun'
        : 'run as root',
    };
  }
}

/** Taps and bridges need CAP_NET_ADMIN, bit 12 of the effective set. */
export function checkPrivilege(status: string): CheckLine {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const able = (effective & (1n << 12n)) !== 0n;
  return {
    name: 'network privilege',
    verdict: able ? 'ok' : 'blocker',
    value: able ? 'may create taps' : 'may not create taps (no CAP_NET_ADMIN)',
    ...(able ? {} : { remedy: 'run as root, with sudo for example' }),
  };
}

export function checkMemory(meminfo: string): CheckLine {
  const bytes = Number(/^MemAvailable:\s*(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024;
  return {
    name: 'memory',
    ...grade(bytes, memoryBytesMin, memoryBytesComfortable),
    value: `${inMebibytes(bytes)} available`,
    ...(bytes < memoryBytesComfortable
      ? {
          remedy: `stop other programs: two small guests and three agents need ${inMebibytes(memoryBytesMin)}`,
        }
      : {}),
  };
}

export function checkLockedMemory(limits: string): CheckLine {
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1] ?? '0';
  const enough = soft === 'unlimited' || Number(soft) >= lockedBytesComfortable;
  return {
    name: 'locked memory',
    verdict: enough ? 'ok' : 'limit',
    value: soft === 'unlimited' ? soft : inMebibytes(Number(soft)),
    ...(enough ? {} : { remedy: 'run "ulimit -l unlimited" first: an RDMA card pins the memory of guests' }),
  };
}

function checkDisk(name: string, folder: string, bytesMin: number, bytesComfortable: number): CheckLine {
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  const disk = statfsSync(existing);
  const bytes = disk.bavail * disk.bsize;
  const graded = grade(bytes, bytesMin, bytesComfortable);
  return {
    name,
    ...graded,
    value: `${inMebibytes(bytes)} free below ${folder}`,
    ...(graded.verdict === 'ok'
      ? {}
      : { remedy: 'free some space there, or set GAIA_ROOT to a folder on a larger disk' }),
  };
}

async function checkQemu(
  options: RequireOptions,
): Promise<{ readonly line: CheckLine; readonly qemu: InstalledQemu | undefined }> {
  try {
    const qemu = await requireQemu(options);
    const value = `build ${qemu.buildId} of ${qemu.sourceVersion}`;
    return { line: { name: 'qemu', verdict: 'ok', value }, qemu };
  } catch (error) {
    if (!(error instanceof GaiaError)) throw error;
    const remedy = 'remedy' in error && typeof error.remedy === 'string' ? error.remedy : undefined;
    const value = remedy === undefined ? error.message : error.message.replace(`: run "${remedy}"`, '');
    const line: CheckLine = {
      name: 'qemu',
      verdict: 'blocker',
      value,
      ...(remedy === undefined ? {} : { remedy: `run "${remedy}"` }),
    };
    return { line, qemu: undefined };
  }
}

function checkFirmware(): CheckLine {
  const missing = firmwareFiles.filter(({ file }) => !existsSync(file));
  if (missing.length === 0)
    return { name: 'firmware', verdict: 'ok', value: 'SeaBIOS and option ROMs are there' };
  return {
    name: 'firmware',
    verdict: 'blocker',
    value: `${missing.map(({ file }) => file).join(', ')} missing`,
    remedy: `run "apt-get install ${[...new Set(missing.map((item) => item.package))].join(' ')}"`,
  };
}

/** BLAKE3 hashes sixteen pages at a time with AVX-512, eight with AVX2, four with SSE 4.1. */
export function checkHashing(flags: ReadonlySet<string>): CheckLine {
  const name = 'page hashing';
  if (flags.has('avx512f') && flags.has('avx512vl')) return { name, verdict: 'ok', value: 'AVX-512' };
  if (flags.has('avx2')) return { name, verdict: 'ok', value: 'AVX2' };
  return {
    name,
    verdict: 'limit',
    value: flags.has('sse4_1') ? 'SSE 4.1' : 'portable code',
    remedy: 'let the hypervisor pass AVX2 or AVX-512 through: hashing takes a larger part of each round',
  };
}

function grade(bytes: number, bytesMin: number, bytesComfortable: number): { verdict: Verdict } {
  if (bytes < bytesMin) return { verdict: 'blocker' };
  return { verdict: bytes < bytesComfortable ? 'limit' : 'ok' };
}

function inMebibytes(bytes: number): string {
  return `${Math.floor(bytes / mebibyte).toLocaleString('en-US')} MiB`;
}
