/**
 * The Linux bridge that joins a VM's taps and the host. Each VM gets the first free number N: bridge gaiaN,
 * network 10.71.N.0/24, the host at .1, the guest at .2.
 */
import { BrokenEnvironmentError, GaiaError } from '../core/errors.ts';
import { CommandFailedError, runCommand } from './command.ts';

const numbersMax = 256;

export class Bridge {
  readonly name: string;
  readonly hostAddress: string;
  readonly guestAddress: string;

  private constructor(name: string) {
    const number = Number.parseInt(name.slice('gaia'.length), 10);
    this.name = name;
    this.hostAddress = `10.71.${number}.1/24`;
    this.guestAddress = `10.71.${number}.2/24`;
  }

  static named(name: string): Bridge {
    return new Bridge(name);
  }

  /** Makes a bridge under the first free number. */
  static async create(): Promise<Bridge> {
    for (let number = 0; number < numbersMax; number++) {
      const bridge = new Bridge(`gaia${number}`);
      if (await bridge.#add()) {
        await runCommand('ip', ['address', 'add', bridge.hostAddress, 'dev', bridge.name]);
        await runCommand('ip', ['link', 'set', bridge.name, 'up']);
        return bridge;
      }
    }
    throw new GaiaError('GAIA_BRIDGE', `All ${numbersMax} bridges gaia0 to gaia${numbersMax - 1} are taken: stop a VM`);
  }

  /** False: the name is taken. */
  async #add(): Promise<boolean> {
    try {
      await runCommand('ip', ['link', 'add', 'name', this.name, 'type', 'bridge', 'forward_delay', '0']);
      return true;
    } catch (error) {
      if (error instanceof CommandFailedError && error.tail.some((line) => line.includes('File exists')))
        return false;
      throw new BrokenEnvironmentError('GAIA_BRIDGE', 'No bridge can be made here', 'gaia-vm check', { cause: error });
    }
  }

  /** Removes it if it is still there. */
  async remove(): Promise<void> {
    try {
      await runCommand('ip', ['link', 'delete', this.name]);
    } catch (error) {
      if (error instanceof CommandFailedError && error.tail.some((line) => line.includes('Cannot find device')))
        return;
      throw error;
    }
  }
}
