/**
 * Network namespaces that stand for hosts: each has one link of 1 Gb/s to a switch, and shares nothing else with the
 * others. Guarantee: `remove` takes all of them away; the end of the process does so too.
 */
import { NetworkNamespace } from '../network-namespace.ts';

const linkRate = '1gbit';
const bridge = 'br0';
const outsideAddress = '10.77.0.254';

export class SeparateHosts {
  readonly #switch: NetworkNamespace;
  readonly #hosts: readonly NetworkNamespace[];
  readonly #bridged: boolean;

  private constructor(theSwitch: NetworkNamespace, hosts: readonly NetworkNamespace[], bridged: boolean) {
    this.#switch = theSwitch;
    this.#hosts = hosts;
    this.#bridged = bridged;
  }

  /** `bridged`: each host has its address on a bridge, which guests can join, and somebody outside is on the switch. */
  static async create(count: number, bridged = false): Promise<SeparateHosts> {
    const theSwitch = await NetworkNamespace.create();
    await theSwitch.run('ip', ['link', 'add', 'switch0', 'type', 'bridge']);
    await theSwitch.run('ip', ['link', 'set', 'switch0', 'up']);
    const hosts: NetworkNamespace[] = [];
    const all = new SeparateHosts(theSwitch, hosts, bridged);
    if (bridged) await theSwitch.run('ip', ['address', 'add', `${outsideAddress}/24`, 'dev', 'switch0']);
    for (let host = 0; host < count; host++) {
      hosts.push(await NetworkNamespace.create());
      await all.#plugIn(host);
    }
    return all;
  }

  async #plugIn(host: number): Promise<void> {
    const namespace = this.host(host);
    const port = `port${host}`;
    await namespace.run('ip', ['link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', port]);
    await namespace.run('ip', ['link', 'set', port, 'netns', this.#switch.name]);
    await this.#switch.run('ip', ['link', 'set', port, 'master', 'switch0', 'up']);
    if (this.#bridged) {
      await namespace.run('ip', ['link', 'add', bridge, 'type', 'bridge', 'forward_delay', '0']);
      await namespace.run('ip', ['link', 'set', 'eth0', 'master', bridge]);
      await namespace.run('ip', ['link', 'set', bridge, 'up']);
    }
    const device = this.#bridged ? bridge : 'eth0';
    await namespace.run('ip', ['address', 'add', `${this.address(host)}/24`, 'dev', device]);
    await namespace.run('ip', ['link', 'set', 'eth0', 'up']);
    const shape = ['root', 'tbf', 'rate', linkRate, 'burst', '256kb', 'latency', '50ms'];
    await namespace.run('tc', ['qdisc', 'add', 'dev', 'eth0', ...shape]);
  }

  host(number: number): NetworkNamespace {
    const host = this.#hosts[number];
    if (host === undefined) throw new Error(`There is no host ${number}`);
    return host;
  }

  /** Where clients are: the switch, and nothing of the hosts. */
  get outside(): NetworkNamespace {
    return this.#switch;
  }

  /** Name of the bridge on each host. */
  get bridge(): string {
    return bridge;
  }

  address(host: number): string {
    return `10.77.0.${host + 1}`;
  }

  /** What `from` sends to `to` vanishes; the other direction goes on. */
  async cut(from: number, to: number): Promise<void> {
    await this.host(from).run('ip', ['route', 'add', 'blackhole', `${this.address(to)}/32`]);
  }

  async mend(from: number, to: number): Promise<void> {
    await this.host(from).run('ip', ['route', 'delete', 'blackhole', `${this.address(to)}/32`]);
  }

  /** Pulls the host's cable: nothing of it can be reached, and it reaches nobody. */
  async unplug(host: number): Promise<void> {
    await this.#switch.run('ip', ['link', 'set', `port${host}`, 'down']);
  }

  async plugInAgain(host: number): Promise<void> {
    await this.#switch.run('ip', ['link', 'set', `port${host}`, 'up']);
  }

  /** Which host's port the switch has last heard this address from; undefined: it does not know. */
  async portOf(mac: string): Promise<number | undefined> {
    const table = await this.#switch.run('bridge', ['fdb', 'show', 'br', 'switch0']);
    const port = new RegExp(`^${mac} dev port(\\d+)`, 'm').exec(table)?.[1];
    return port === undefined ? undefined : Number(port);
  }

  async remove(): Promise<void> {
    await Promise.all([...this.#hosts, this.#switch].map((namespace) => namespace.remove()));
  }
}
