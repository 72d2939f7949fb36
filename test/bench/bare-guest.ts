/**
 * A guest as its users would run it without gaia-vm: one QEMU, free-running, on machine pc under TCG, behind a tap in
 * the bench's network namespace. Guarantee: an interruption ends it.
 */
import { join } from 'node:path';
import type { Image } from '../../images/index.ts';
import { machineArguments, type MachineProfile } from '../../vmm/io/qemu/profile.ts';
import type { NetworkNamespace } from '../framework/network-namespace.ts';
import { QemuProcess } from '../framework/qemu-process.ts';

export const bareGuestAddress = '10.0.0.2';
export const bareGuestTap = 'tap0';
/** The host's side of the link. */
export const bareHostAddress = '10.0.0.1/24';
const memoryBytesLeast = 256 << 20;
export const readyTimeoutMs = 120_000;

/** One vCPU under TCG, with what the image needs, on the tap of the bench. */
export function bareMachine(image: Image, serialFile: string): MachineProfile {
  return {
    machine: 'pc',
    lockstep: false,
    memoryBytes: Math.max(image.memoryBytesMin, memoryBytesLeast),
    vcpus: 1,
    kernel: image.kernel,
    initrd: image.initrd,
    appendExtra: [...image.kernelArguments, `gaia.ip=${bareGuestAddress}/24`, 'gaia.gw=10.0.0.1'],
    mac: '52:54:00:00:00:02',
    tapName: bareGuestTap,
    rtcBase: '2026-01-01T00:00:00',
    serialFile,
  };
}

export class BareGuest {
  /** From the start of QEMU until its console showed the image's ready marker, seconds. */
  readonly readyS: number;
  readonly #qemu: QemuProcess;

  private constructor(qemu: QemuProcess, readyS: number) {
    this.#qemu = qemu;
    this.readyS = readyS;
  }

  /** `folder` takes its console. The namespace has the tap. `binary`: another QEMU than the patched one. */
  static async boot(
    image: Image,
    namespace: NetworkNamespace,
    folder: string,
    signal: AbortSignal,
    binary?: string,
  ): Promise<BareGuest> {
    const serialFile = join(folder, 'serial.log');
    const args = machineArguments(bareMachine(image, serialFile));
    signal.throwIfAborted();
    const began = performance.now();
    const qemu = new QemuProcess({
      args,
      serialFile,
      namespace,
      ...(binary === undefined ? {} : { binary }),
    });
    const end = (): void => void qemu.stop();
    signal.addEventListener('abort', end);
    try {
      await qemu.waitForSerial(image.readyMarker ?? '', readyTimeoutMs);
      return new BareGuest(qemu, (performance.now() - began) / 1000);
    } catch (error) {
      await qemu.stop();
      throw error;
    } finally {
      signal.removeEventListener('abort', end);
    }
  }

  /** Process id of its QEMU. */
  get pid(): number {
    return this.#qemu.pid;
  }

  async stop(): Promise<void> {
    await this.#qemu.stop();
  }
}
