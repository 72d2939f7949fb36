/** What agents and guests would stumble over on this machine is said once, before anything is made. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { BrokenEnvironmentError, GaiaError } from './core/errors.ts';
import { selfCommand } from './io/project-folder.ts';
import { replicaFiles } from './vm-plan.ts';

/** sun_path of a Unix socket, without its final NUL. */
const socketPathBytesMax = 107;
/** Of one replica, beside guest memory: an agent needs 75 MiB as measured, a QEMU 130, and there is room to breathe. */
const overheadBytes = 200 << 20;

/** Throws when these replicas, so many of them with a guest, cannot run here. */
export function refuseMachine(
  name: string,
  replicas: readonly string[],
  memoryBytes: number,
  guests: number,
): void {
  const neededBytes = guests * memoryBytes + replicas.length * overheadBytes;
  const availableBytes = memoryAvailableBytes();
  if (availableBytes < neededBytes)
    throw new GaiaError(
      'GAIA_HOST_MEMORY',
      `${guestsText(guests, memoryBytes)} need ${mebibytes(neededBytes)} of memory, and ${mebibytes(availableBytes)} are available here: give less --memory, or free some`,
    );
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
  } catch (error) {
    throw new BrokenEnvironmentError(
      'GAIA_TUN',
      `/dev/net/tun cannot be opened (${(error as NodeJS.ErrnoException).code ?? 'unknown error'}), and guests have no network without it`,
      `${selfCommand()} check`,
      { cause: error },
    );
  }
  for (const replica of replicas) {
    const { portSocket } = replicaFiles(name, replica);
    if (Buffer.byteLength(portSocket) > socketPathBytesMax)
      throw new GaiaError(
        'GAIA_SOCKET_PATH',
        `The socket path ${portSocket} has ${Buffer.byteLength(portSocket)} bytes, and Linux allows ${socketPathBytesMax}: choose a shorter GAIA_ROOT or --name`,
      );
  }
}

function guestsText(guests: number, memoryBytes: number): string {
  if (guests === 0) return 'Agents';
  const size = mebibytes(memoryBytes);
  return guests === 1 ? `A guest of ${size} and its agent` : `Two guests of ${size} and their agents`;
}

function memoryAvailableBytes(): number {
  const match = /^MemAvailable: *(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return match === null ? Infinity : Number(match[1]) * 1024;
}

function mebibytes(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)} MiB`;
}
