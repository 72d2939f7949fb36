/**
 * How many frames a second pass between clients and a redis guest: through the port's rings, round by round, and
 * through the tap of a QEMU that knows of no port. The same load, the same machine, by turns; who has no turn stands or is idle.
 */
import { existsSync } from 'node:fs';
import { findImage } from '../../../images/index.ts';
import type { NetworkNamespace } from '../../framework/network-namespace.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork } from '../../framework/port-machine.ts';
import { running } from '../../framework/running.ts';
import { BareGuest, bareGuestAddress, bareGuestTap, bareHostAddress } from '../bare-guest.ts';
import type { Measurements } from '../measurements.ts';
import { redisRequestsPerSecond } from '../redis-benchmark.ts';
import { FramePump } from './frame-pump.ts';

const debianQemu = '/usr/bin/qemu-system-x86_64';
const memoryBytes = 256 << 20;
const portTap = 'port';
const roundsPerTurn = 20;
const looksPerTurn = 100;

export const frameRow = {
  plain: 'frames, plain tap',
  port: 'frames, through the rings',
  atOnce: 'frames, through the rings at once',
  plainRequests: 'redis GET, plain tap',
  portRequests: 'redis GET, through the rings',
  atOnceRequests: 'redis GET, through the rings at once',
  framesPerRound: 'frames into the guest, a round',
} as const;

/** Debian's own QEMU where it is installed; the patched one without a port takes no other way. */
export function plainQemu(): { readonly binary: string | undefined; readonly name: string } {
  return existsSync(debianQemu)
    ? { binary: debianQemu, name: "Debian's qemu-system-x86" }
    : { binary: undefined, name: 'the patched QEMU without a port' };
}

export interface FrameLoad {
  readonly requests: number;
  readonly connections: number;
}

export class FrameRates {
  readonly #lab: PortLab;
  readonly #measurements: Measurements;
  readonly #load: FrameLoad;
  readonly #pump: FramePump;
  readonly #plain: BareGuest;
  readonly #port: number;

  private constructor(
    lab: PortLab,
    measurements: Measurements,
    load: FrameLoad,
    pump: FramePump,
    plain: BareGuest,
    port: number,
  ) {
    this.#lab = lab;
    this.#measurements = measurements;
    this.#load = load;
    this.#pump = pump;
    this.#plain = plain;
    this.#port = port;
  }

  static async boot(
    lab: PortLab,
    measurements: Measurements,
    load: FrameLoad,
    signal: AbortSignal,
  ): Promise<FrameRates> {
    const image = await findImage('redis');
    const guest = await lab.boot(portTap, image.name, { lockstep: false, memoryBytes });
    await lab.bringUp(portTap, hostNetwork);
    await lab.namespace.addTap(bareGuestTap, bareHostAddress);
    const plain = await BareGuest.boot(image, lab.namespace, lab.folder, signal, plainQemu().binary);
    return new FrameRates(lab, measurements, load, new FramePump(guest), plain, image.port ?? 0);
  }

  /** One turn of each. */
  async measure(signal: AbortSignal): Promise<void> {
    const { namespace } = this.#lab;
    await this.#turn(signal, frameRow.plain, frameRow.plainRequests, bareGuestTap, () =>
      this.#requests(namespace, bareGuestAddress),
    );
    const [rounds, frames] = [this.#pump.rounds, this.#pump.framesIn];
    await this.#turn(signal, frameRow.port, frameRow.portRequests, portTap, () =>
      running(this.#requests(namespace, guestAddress), () => {
        for (let round = 0; round < roundsPerTurn; round++) this.#pump.round();
      }),
    );
    const framesPerRound = (this.#pump.framesIn - frames) / (this.#pump.rounds - rounds);
    this.#measurements.add(frameRow.framesPerRound, 'frames', framesPerRound);
    await this.#turn(signal, frameRow.atOnce, frameRow.atOnceRequests, portTap, () =>
      running(this.#requests(namespace, guestAddress), () => {
        this.#pump.atOnce(looksPerTurn);
      }),
    );
  }

  async #requests(namespace: NetworkNamespace, host: string): Promise<number> {
    return redisRequestsPerSecond(namespace, host, this.#port, { operation: 'GET', ...this.#load });
  }

  async #turn(
    signal: AbortSignal,
    framesName: string,
    requestsName: string,
    tap: string,
    work: () => Promise<number>,
  ): Promise<void> {
    const before = await this.#framesOf(tap);
    await this.#measurements.attempt(requestsName, 'requests/s', signal, async () => {
      const begun = performance.now();
      const requestsPerSecond = await work();
      const seconds = (performance.now() - begun) / 1000;
      const frames = (await this.#framesOf(tap)) - before;
      this.#measurements.add(framesName, 'frames/s', frames / seconds);
      return requestsPerSecond;
    });
  }

  async #framesOf(tap: string): Promise<number> {
    return (await this.#lab.framesOnTap(tap)) + (await this.#lab.framesFromTap(tap));
  }

  async stop(): Promise<void> {
    await this.#plain.stop();
  }
}
