/**
 * The Linux bridge that joins a VM's taps and the host. Each VM gets the first free number N: bridge gaiaN,
 * network 10.71.N.0/24, the host at .1, the guest at .2. The host is a port like the taps, through a veth pair
 * (gaiaNh on the host's side): an address on the bridge itself would lose its carrier, and with it all neighbour
 * entries for about a second, whenever a dying leader's tap is the last live port.
 */
import { randomBytes } from 'node:crypto';
import { BrokenEnvironmentError, GaiaError } from '../core/errors.ts';
import { CommandFailedError, runCommand } from './command.ts';

const numbersMax = 256;

export class Bridge {
  readonly number: number;
  readonly name: string;
  readonly hostInterface: string;
  readonly hostAddress: string;
  readonly guestAddress: string;

  private constructor(name: string) {
    const number = Number.parseInt(name.slice('gaia'.length), 10);
    this.number = number;
    this.name = name;
    this.hostInterface = `${name}h`;
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
        await bridge.#joinHost();
        return bridge;
      }
    }
    throw new GaiaError(
      'GAIA_BRIDGE',
      `All ${numbersMax} bridges gaia0 to gaia${numbersMax - 1} are taken: stop a VM`,
    );
  }

  /** False: the name is taken. */
  async #add(): Promise<boolean> {
    try {
      await runCommand('ip', ['link', 'add', 'name', this.name, 'type', 'bridge', 'forward_delay', '0']);
      return true;
    } catch (error) {
      if (error instanceof CommandFailedError && error.tail.some((line) => line.includes('File exists')))
        return false;
      throw new BrokenEnvironmentError('GAIA_BRIDGE', 'No bridge can be made here', 'gaia-vm check', {
        cause: error,
      });
    }
  }

  async #joinHost(): Promise<void> {
    const [host, port] = [this.hostInterface, `${this.name}p`];
    await runCommand('ip', ['link', 'add', host, 'type', 'veth', 'peer', 'name', port]);
    await joinBridge(port, this.name);
    await runCommand('ip', ['link', 'set', this.name, 'addrgenmode', 'none', 'up']);
    await runCommand('ip', ['address', 'add', this.hostAddress, 'dev', host]);
    await runCommand('ip', ['link', 'set', host, 'up']);
  }

  /** Removes it, as far as it is still there. */
  async remove(): Promise<void> {
    await removeLink(this.hostInterface);
    await removeLink(this.name);
  }
}

/** Of a VM's replicas, in the order of their ids. */
export function tapNames(prefix: string): readonly string[] {
  return ['a', 'b', 'c'].map((letter) => `${prefix}${letter}`);
}

/** Whether this machine has a bridge of that name, ours or not. */
export async function bridgeExists(name: string): Promise<boolean> {
  try {
    // Of an interface that is no bridge it shows nothing.
    const shown = await runCommand('ip', ['-oneline', 'link', 'show', 'dev', name, 'type', 'bridge']);
    return shown.trim() !== '';
  } catch (error) {
    if (error instanceof CommandFailedError) return false;
    throw error;
  }
}

/** Makes an interface a live port of a bridge, without an address of its own that would talk there. */
export async function joinBridge(port: string, bridge: string): Promise<void> {
  // A bridge takes the lowest of its ports' addresses: a random one would change the host's own when it comes or goes.
  const hex = randomBytes(4).toString('hex').match(/../g) ?? [];
  await runCommand('ip', ['link', 'set', port, 'address', ['fe', '54', ...hex].join(':')]);
  await runCommand('ip', ['link', 'set', port, 'master', bridge, 'addrgenmode', 'none', 'up']);
}

/**
 * The bridge does not learn who is behind this port: what is sent to the guest reaches the ports of all its replicas, so
 * that whoever serves next has heard it, too.
 */
export async function floodPort(port: string): Promise<void> {
  await runCommand('ip', [
    'link',
    'set',
    'dev',
    port,
    'type',
    'bridge_slave',
    'learning',
    'off',
    'flood',
    'on',
  ]);
}

async function removeLink(name: string): Promise<void> {
  try {
    await runCommand('ip', ['link', 'delete', name]);
  } catch (error) {
    if (error instanceof CommandFailedError && error.tail.some((line) => line.includes('Cannot find device')))
      return;
    throw error;
  }
}
