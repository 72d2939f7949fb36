/** A guest whose service is asked by verifying clients, from the host's side of its tap, while tests run it. */
import type { LoadProcess } from './load-process.ts';
import type { LoadReport } from './load-program.ts';
import type { PortGuest } from './port-guest.ts';
import type { LabProfile, PortLab } from './port-lab.ts';
import { guestAddress, hostNetwork } from './port-machine.ts';
import { running } from './running.ts';

export interface Service {
  readonly image: string;
  readonly port: number;
  /** Its load program, and what follows host and port on its command line. */
  readonly program: string;
  readonly words: readonly string[];
}

/** Eight connections each. */
export const services = {
  memcached: { image: 'memcached', port: 11_211, program: 'memcached-load.js', words: ['8'] },
  redis: { image: 'redis', port: 6379, program: 'redis-load.js', words: ['8'] },
  nginx: { image: 'nginx', port: 80, program: 'nginx-load.js', words: ['8'] },
} as const satisfies Readonly<Record<string, Service>>;

export class LiveService {
  readonly guest: PortGuest;
  readonly #load: LoadProcess<LoadReport>;

  private constructor(guest: PortGuest, load: LoadProcess<LoadReport>) {
    this.guest = guest;
    this.#load = load;
  }

  /** Boots a guest called `name`, and runs it in rounds of `roundNs` until every client has had a reply. */
  static async start(
    lab: PortLab,
    name: string,
    service: Service,
    profile: LabProfile,
    roundNs: number,
  ): Promise<LiveService> {
    const guest = await lab.boot(name, service.image, profile);
    await lab.bringUp(name, hostNetwork);
    guest.port.divertIngress(true);
    const words = [guestAddress, String(service.port), ...service.words];
    const load = await lab.load<LoadReport>(service.program, words, () => serveRound(guest, roundNs));
    return new LiveService(guest, load);
  }

  /** Ends the clients, whose last operations need `step` to run the guest, and returns what they saw. */
  async stop(step: () => void): Promise<LoadReport> {
    return running(this.#load.stop(), step);
  }
}

/** One round of a guest that serves alone: what came from the tap goes in, what the guest sends goes out at once. */
export function serveRound(guest: PortGuest, ns: number): void {
  guest.runFor(ns, guest.takeIngress(), true);
}
