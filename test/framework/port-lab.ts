/**
 * The place in which port tests run their guests: a network namespace and a folder of its own. Guarantee: `remove`
 * leaves no process, no tap and no file, however far the test came.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { NetworkNamespace } from './network-namespace.ts';
import { PortGuest, portQemu, serialFile } from './port-guest.ts';
import { firmwareArguments, imageArguments, type PlacedProfile } from './port-machine.ts';
import type { Image } from '../../images/index.ts';

/** What the lab fills in by itself. */
type Profile = Omit<PlacedProfile, 'tapName'>;

export class PortLab {
  readonly namespace: NetworkNamespace;
  readonly folder: string;
  readonly qemu: string;
  readonly #guests: PortGuest[] = [];

  private constructor(namespace: NetworkNamespace, qemu: string) {
    this.namespace = namespace;
    this.qemu = qemu;
    this.folder = mkdtempSync(join(tmpdir(), 'gaia-port-'));
  }

  static async create(): Promise<PortLab> {
    const qemu = await portQemu();
    return new PortLab(await NetworkNamespace.create(), qemu);
  }

  /** A standing guest that would boot `image`; its tap is called `name`, at most 15 characters. */
  startImage(name: string, image: Image, profile: Profile = {}, portOptions?: string): PortGuest {
    return this.start(name, imageArguments(image, this.#placed(name, profile)), portOptions);
  }

  /** A standing guest that would run `firmware`. */
  startFirmware(name: string, firmware: Uint8Array, profile: Profile = {}, portOptions?: string): PortGuest {
    return this.start(name, this.firmwareArguments(name, firmware, profile), portOptions);
  }

  firmwareArguments(name: string, firmware: Uint8Array, profile: Profile = {}): string[] {
    return firmwareArguments(firmware, this.folder, this.#placed(name, profile));
  }

  start(name: string, args: readonly string[], portOptions?: string): PortGuest {
    const { namespace, folder, qemu } = this;
    const options = portOptions === undefined ? {} : { portOptions };
    const guest = PortGuest.start({ qemu, namespace, folder, name, args, ...options });
    this.#guests.push(guest);
    return guest;
  }

  #placed(name: string, profile: Profile): PlacedProfile {
    return { tapName: name, serialFile: serialFile({ folder: this.folder, name }), ...profile };
  }

  /** Gives the host an address on a guest's tap, so that programs in the namespace reach the guest. */
  async bringUp(tap: string, address: string): Promise<void> {
    await this.namespace.run('ip', ['address', 'add', address, 'dev', tap]);
    await this.namespace.run('ip', ['link', 'set', tap, 'up']);
  }

  /** Frames that QEMU has written to a tap since the tap was made. */
  async framesOnTap(tap: string): Promise<number> {
    return this.#tapStatistic(tap, 'rx_packets');
  }

  /** Frames that QEMU has read from a tap since the tap was made. */
  async framesFromTap(tap: string): Promise<number> {
    return this.#tapStatistic(tap, 'tx_packets');
  }

  async #tapStatistic(tap: string, name: string): Promise<number> {
    return Number(await this.namespace.run('cat', [`/sys/class/net/${tap}/statistics/${name}`]));
  }

  async remove(): Promise<void> {
    for (const guest of this.#guests) await guest.remove();
    await this.namespace.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const workLimitMs = 30_000;

/** Repeats `step` until `work`, which needs a guest that runs, is done. */
export async function running<T>(work: Promise<T>, step: () => void): Promise<T> {
  const state = { done: false };
  const watched = work.finally(() => {
    state.done = true;
  });
  watched.catch(() => undefined); // It is awaited below, but `step` may throw first.
  const begun = performance.now();
  while (!state.done) {
    if (performance.now() - begun > workLimitMs)
      throw new Error('Work that needs the guest is not done after 30 s');
    step();
    await turn();
  }
  return watched;
}
