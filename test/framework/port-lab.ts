/**
 * The place in which port tests run their guests: a network namespace and a folder of its own. Guarantee: `remove`
 * leaves no process, no tap and no file, however far the test came.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage, type Image } from '../../images/index.ts';
import { LoadProcess } from './load-process.ts';
import { NetworkNamespace } from './network-namespace.ts';
import { PortGuest, portQemu, serialFile, type PortGuestStart } from './port-guest.ts';
import { firmwareArguments, imageArguments, type PlacedProfile } from './port-machine.ts';
import { running } from './running.ts';

/** What the lab fills in by itself. */
export type LabProfile = Omit<PlacedProfile, 'tapName'>;

/** How a guest's QEMU is started, beyond its machine. */
export type StartOptions = Partial<Pick<PortGuestStart, 'portOptions' | 'environment' | 'standing'>>;

interface Place {
  readonly namespace: NetworkNamespace;
  readonly folder: string;
  readonly qemu: string;
}

export class PortLab {
  #place: Place | undefined;
  readonly #guests: PortGuest[] = [];
  readonly #loads: { kill(): void }[] = [];

  /** Before anything else. */
  async open(): Promise<void> {
    const qemu = await portQemu();
    const namespace = await NetworkNamespace.create();
    this.#place = { namespace, qemu, folder: mkdtempSync(join(tmpdir(), 'gaia-port-')) };
  }

  get #opened(): Place {
    if (this.#place === undefined) throw new Error('The lab is not open');
    return this.#place;
  }

  get namespace(): NetworkNamespace {
    return this.#opened.namespace;
  }

  get folder(): string {
    return this.#opened.folder;
  }

  get qemu(): string {
    return this.#opened.qemu;
  }

  // Guests -------------------------------------------------------------------------------------------

  /** A standing guest that would boot `image`; its tap is called `name`, at most 15 characters. */
  startImage(name: string, image: Image, profile: LabProfile = {}, more: StartOptions = {}): PortGuest {
    return this.start(name, imageArguments(image, this.#placed(name, profile)), more);
  }

  /** A standing guest whose service answers. */
  async boot(name: string, imageName: string, profile: LabProfile = {}): Promise<PortGuest> {
    const image = await buildImage(imageName);
    const guest = this.startImage(name, image, profile);
    guest.bootUntil(image.readyMarker ?? '');
    return guest;
  }

  /** A standing guest that would run `firmware`. */
  startFirmware(
    name: string,
    firmware: Uint8Array,
    profile: LabProfile = {},
    more: StartOptions = {},
  ): PortGuest {
    return this.start(name, this.firmwareArguments(name, firmware, profile), more);
  }

  firmwareArguments(name: string, firmware: Uint8Array, profile: LabProfile = {}): string[] {
    return firmwareArguments(firmware, this.folder, this.#placed(name, profile));
  }

  start(name: string, args: readonly string[], more: StartOptions = {}): PortGuest {
    const guest = PortGuest.start({ ...this.#opened, name, args, ...more });
    this.#guests.push(guest);
    return guest;
  }

  #placed(name: string, profile: LabProfile): PlacedProfile {
    return { tapName: name, serialFile: serialFile({ folder: this.folder, name }), ...profile };
  }

  // The network --------------------------------------------------------------------------------------

  /** Gives the host an address on a guest's tap, so that programs in the namespace reach the guest. */
  async bringUp(tap: string, address: string): Promise<void> {
    await this.namespace.run('ip', ['address', 'add', address, 'dev', tap]);
    await this.namespace.run('ip', ['link', 'set', tap, 'up']);
  }

  /** Starts a load program and repeats `step`, which runs the guests that it asks, until it is served. */
  async load<Report>(
    program: string,
    words: readonly string[],
    step: () => void,
  ): Promise<LoadProcess<Report>> {
    const load = LoadProcess.begin<Report>(this.namespace, program, words);
    this.#loads.push(load);
    await running(load.serving(), step);
    return load;
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

  // The end ------------------------------------------------------------------------------------------

  /** Ends one guest; the others go on. */
  async removeGuest(guest: PortGuest): Promise<void> {
    const at = this.#guests.indexOf(guest);
    if (at !== -1) this.#guests.splice(at, 1);
    await guest.remove();
  }

  async remove(): Promise<void> {
    for (const load of this.#loads) load.kill();
    for (const guest of this.#guests) await guest.remove();
    await this.#place?.namespace.remove();
    if (this.#place !== undefined) rmSync(this.#place.folder, { recursive: true, force: true });
  }
}
