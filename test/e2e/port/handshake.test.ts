/** What QEMU hands to its agent at the start, and what it refuses to start with. */
import { closeSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findImage, type Image } from '../../../images/index.ts';
import { native } from '../../../native/binding.ts';
import { areaOffset, stopReason, version } from '../../../vmm/io/qemu/layout.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import { portCommand, serialFile } from '../../framework/port-guest.ts';
import {
  giveOrder,
  guestAddress,
  haltingFirmware,
  hostNetwork,
  imageArguments,
  orderIsDone,
  writingFirmware,
} from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { QemuProcess } from '../../framework/qemu-process.ts';
import { QmpClient } from '../../framework/qmp-client.ts';
import { memcachedRoundTrip } from '../../framework/service-checks.ts';

const bootTimeoutMs = 90_000;

/** Names and lengths of all RAM blocks as QEMU lists them for people. */
async function listedBlocks(qmp: QmpClient): Promise<[string, number][]> {
  const answer = (await qmp.execute('x-query-ramblock')) as { 'human-readable-text': string };
  const lines = answer['human-readable-text'].trimEnd().split('\n').slice(1);
  return lines.map((line) => {
    const [, name, total] = /^\s*(\S+)\s+\d+ KiB\s+0x\w+ 0x\w+ 0x(\w+)/.exec(line) ?? [];
    if (name === undefined || total === undefined) throw new Error(`Not a RAM block: ${line}`);
    return [name, Number.parseInt(total, 16)];
  });
}

describeInLab('the gaia port greets', (lab) => {
  it('every RAM block comes with a descriptor of the very memory that the guest uses', async () => {
    const qmpPath = join(lab.folder, 'blocks.qmp');
    const firmware = writingFirmware();
    const guest = lab.startFirmware('blocks', firmware, { qmpPath });
    const qmp = await QmpClient.connect(qmpPath);
    const blocks = guest.port.blocks.map(({ name, bytes }) => [name, bytes]);
    expect(blocks).toEqual(expect.arrayContaining(await listedBlocks(qmp)));
    expect(new Set(guest.port.blocks.map(({ bitmapBit }) => bitmapBit % 64))).toEqual(new Set([0]));
    const memoryOf = (name: string): ArrayBuffer => {
      return guest.port.blocks.find((block) => block.name === name)?.memory ?? new ArrayBuffer();
    };
    const ram = Buffer.from(memoryOf('ram0'));
    const bios = Buffer.from(memoryOf('pc.bios'));
    expect(bios.equals(firmware)).toBe(true);

    giveOrder(memoryOf('ram0'), 0x1234, [0x20, 0x9e]);
    while (!orderIsDone(memoryOf('ram0'))) guest.runFor(10_000);
    expect([ram.readUInt16LE(0x20000), ram.readUInt16LE(0x9e000)]).toEqual([0x1234, 0x1234]);
    const filename = join(lab.folder, 'low-memory');
    await qmp.execute('pmemsave', { val: 0, size: 0xa0000, filename });
    expect(readFileSync(filename).equals(ram.subarray(0, 0xa0000))).toBe(true);
    qmp.close();
  });

  it('an area of another layout version is refused with what to do', () => {
    const guest = lab.startFirmware('version', haltingFirmware());
    new DataView(guest.area).setUint32(areaOffset.version, version + 1, true);
    guest.hangUp();
    const text = `QEMU's gaia port speaks layout version ${version + 1}, this agent ${version}`;
    expect(() => guest.greetAgain()).toThrow(
      expect.objectContaining({ message: expect.stringContaining(text) as string }),
    );
  });

  it('a monitor may look at a claimed guest and not change it', async () => {
    const qmpPath = join(lab.folder, 'guarded.qmp');
    const guest = lab.startFirmware('guarded', haltingFirmware(), { qmpPath });
    const qmp = await QmpClient.connect(qmpPath);
    const refused: readonly [string, Record<string, unknown>][] = [
      ['migrate', { uri: 'exec:cat >/dev/null' }],
      ['object-del', { id: 'port0' }],
      ['object-add', { 'qom-type': 'gaia-port', id: 'port1', path: '/nowhere', netdev: 'net0' }],
      ['system_reset', {}],
      ['system_powerdown', {}],
      ['stop', {}],
      ['cont', {}],
      ['set_link', { name: 'net0', up: false }],
      ['device_add', { driver: 'virtio-net-pci' }],
      ['qom-set', { path: '/objects/port0', property: 'netdev', value: 'net1' }],
      ['inject-nmi', {}],
      ['send-key', { keys: [] }],
      ['balloon', { value: 1 << 26 }],
      ['calc-dirty-rate', { 'calc-time': 1 }],
    ];
    for (const [command, values] of refused)
      await expect(qmp.execute(command, values), command).rejects.toThrow(
        /^.*has been disabled: the guest is replicated by gaia-port, and only its agent may change it/,
      );
    const people = async (line: string): Promise<string> =>
      (await qmp.execute('human-monitor-command', { 'command-line': line })) as string;
    for (const line of ['system_reset', 'cont', 'c', 'o 0xcf9 6', 'gva2gpa 0', 'sendkey a'])
      expect(await people(line), line).toMatch(/is refused: the guest is replicated by gaia-port/);
    expect(await people('info status')).toMatch(/VM status: paused/);
    expect(await people('xp /1xw 0')).toMatch(/0x00000000/);
    expect(await qmp.execute('query-status')).toMatchObject({ running: false });
    const blocker = 'the guest is replicated by gaia-port';
    expect(await qmp.execute('query-migrate')).toMatchObject({ 'blocked-reasons': [blocker] });
    expect(guest.runFor(1000).virtualNs).toBe(1000);
    qmp.close();
  });

  it('a guest that QEMU was to start at once waits for its agent all the same', () => {
    const args = lab.firmwareArguments('at-once', writingFirmware());
    const guest = lab.start('at-once', args, { standing: false });
    expect(guest.port.stop()).toMatchObject({ virtualNs: 0, reason: stopReason.pause });
    expect(guest.runFor(1000).virtualNs).toBe(1000);
  });

  it('nobody but the agent starts a guest that waits for its agent', async () => {
    const qmpPath = join(lab.folder, 'waiting.qmp');
    const guest = lab.startFirmware('waiting', haltingFirmware(), { qmpPath });
    guest.hangUp();
    const qmp = await QmpClient.connect(qmpPath);
    await expect(qmp.execute('cont')).rejects.toThrow(/only its agent may change it/);
    expect(await qmp.execute('query-status')).toMatchObject({ running: false });
    guest.claimAgain();
    expect(guest.virtualNs).toBe(0);
    qmp.close();
  });
});

describeInLab('a machine that no agent can replicate', (lab) => {
  let listenFd: number;

  beforeAll(() => {
    // An agent is there, so that its absence is no reason.
    listenFd = native().portListen(join(lab.folder, 'refused.port'));
  });

  afterAll(() => {
    closeSync(listenFd);
  });

  it.each<[string, (args: string[]) => string[], RegExp]>([
    [
      'a second port',
      (args) => [...args, '-object', 'gaia-port,id=port1,path=/nowhere,netdev=net0'],
      /only one gaia-port fits a machine/,
    ],
    [
      'a netdev that is not there',
      (args) => args.map((arg) => arg.replace('netdev=net0', 'netdev=absent')),
      /absent/,
    ],
    ['a netdev without a card', (args) => without(args, '-device', /virtio-net/), /netdev 'net0' has no NIC/],
    [
      'a netdev of kind "user", whose connections would live in one QEMU',
      (args) => [...without(args, '-netdev', /tap/), '-netdev', 'user,id=net0'],
      /netdev 'net0' is of type 'user'|-netdev user,id=net0: .*'?user'?/,
    ],
    [
      'a netdev that is neither tap nor socket',
      (args) => [...without(args, '-netdev', /tap/), '-netdev', 'hubport,id=net0,hubid=1'],
      /netdev 'net0' is of type 'hubport', and only the traffic of 'tap', 'stream' and 'dgram' can be/,
    ],
    [
      'a second card',
      (args) => [...args, '-device', 'virtio-net-pci,id=nic1,romfile='],
      /the machine has 2 NICs or NIC queues, and only one can be replicated/,
    ],
    [
      'an iothread',
      (args) => [...args, '-object', 'iothread,id=io0'],
      /an iothread would change the guest while it is compared/,
    ],
    [
      'a second serial line of the port',
      (args) => [...args, '-chardev', 'gaia,id=ser0', '-chardev', 'gaia,id=ser1'],
      /only one serial line can be replicated/,
    ],
    [
      'a console that is not there',
      (args) => args.map((arg) => arg.replace('gaia-port,', 'gaia-port,console=absent,')),
      /no chardev 'absent' for what the guest says on its serial line/,
    ],
    [
      'memory that is not shared',
      (args) => args.map((arg) => arg.replace('share=on', 'share=off')),
      /memory backends need share=on/,
    ],
  ])('%s is refused by name', async (_what, change, complaint) => {
    const { exitCode, stderr } = await runToItsEnd(lab, 'refused', change);
    expect(stderr).toMatch(complaint);
    expect(exitCode).toBe(1);
  });

  it('vhost, which would move frames past the port, is not to be had', async () => {
    // It is not compiled in, and QEMU 7.2 itself does not get over that.
    const change = (args: string[]): string[] => args.map((arg) => arg.replace('vhost=off', 'vhost=on'));
    const { exitCode, stderr } = await runToItsEnd(lab, 'refused', change);
    expect(stderr).toMatch(/vhost/);
    expect(exitCode).not.toBe(0);
  });

  it.each<[string, string, RegExp]>([
    ['without "path"', 'gaia-port,id=port0,netdev=net0', /path/],
    ['without "netdev"', 'gaia-port,id=port0,path=/nowhere', /netdev/],
    ['whose agent is not there', 'gaia-port,id=port0,path=/nowhere,netdev=net0', /no agent at '\/nowhere'/],
    ['whose path no socket can have', `gaia-port,id=port0,path=/${'x'.repeat(120)},netdev=net0`, /longer/],
  ])('a port %s is refused by name', async (_what, object, complaint) => {
    const { exitCode, stderr } = await runToItsEnd(lab, 'refused', (args) => [...args.slice(0, -1), object]);
    expect(stderr).toMatch(complaint);
    expect(exitCode).toBe(1);
  });
});

/** Removes every `option` whose value matches. */
function without(args: readonly string[], option: string, value: RegExp): string[] {
  const doomed = args.flatMap((arg, at) =>
    arg === option && value.test(args[at + 1] ?? '') ? [at, at + 1] : [],
  );
  return args.filter((_, at) => !doomed.includes(at));
}

/** A QEMU with a port, its arguments changed, as far as it comes; `change` sees what follows QEMU's name. */
async function runToItsEnd(
  lab: PortLab,
  name: string,
  change: (args: string[]) => string[],
): Promise<{ exitCode: number | undefined; stderr: string }> {
  const { namespace, folder, qemu } = lab;
  const args = lab.firmwareArguments(name, haltingFirmware());
  const [command, words] = portCommand({ qemu, namespace, folder, name, args });
  const own = words.indexOf(qemu) + 1;
  const options = { reject: false, timeout: 20_000, killSignal: 'SIGKILL' } as const;
  const { exitCode, stderr } = await execa(
    command,
    [...words.slice(0, own), ...change(words.slice(own))],
    options,
  );
  return { exitCode, stderr };
}

describeInLab('without a port', (lab) => {
  beforeAll(() => {
    process.env['GAIA_QEMU'] ??= lab.qemu;
  });

  /** Boots an image, with `icount` as its option unless empty, and lets `look` at it before it ends. */
  async function boot(
    name: string,
    icount: string,
    look: (qemu: QemuProcess, qmp: QmpClient, image: Image) => Promise<void>,
  ): Promise<void> {
    const image = await findImage('memcached');
    await lab.namespace.addTap(name, hostNetwork);
    const place = { folder: lab.folder, name };
    const qmpPath = join(lab.folder, `${name}.qmp`);
    const lockstep = icount !== '';
    const args = imageArguments(image, { lockstep, tapName: name, serialFile: serialFile(place), qmpPath });
    const qemu = new QemuProcess({
      args: args.map((arg, at) => (args[at - 1] === '-icount' ? icount : arg)),
      serialFile: serialFile(place),
      namespace: lab.namespace,
    });
    try {
      await qemu.waitForSerial(image.readyMarker ?? '', bootTimeoutMs);
      const qmp = await QmpClient.connect(qmpPath);
      await look(qemu, qmp, image);
      qmp.close();
      expect(qemu.stderr).toBe('');
    } finally {
      await qemu.stop();
      await lab.namespace.run('ip', ['link', 'delete', name]);
    }
  }

  async function expectService(image: Image): Promise<void> {
    const endpoint = { namespace: lab.namespace, host: guestAddress, port: image.port ?? 0 };
    expect(await memcachedRoundTrip(endpoint, 'key', 'a value')).toBe('a value');
  }

  it('QEMU runs guests as ever: nothing of its own memory is shared, nothing is held, migration is free', async () => {
    await boot('plain', '', async (qemu, qmp, image) => {
      await expectService(image);
      expect(readFileSync(`/proc/${qemu.pid}/maps`, 'utf8')).not.toMatch(/memfd:gaia/);
      expect(await qmp.execute('query-migrate')).not.toHaveProperty('blocked-reasons');
    });
  });

  it('a guest whose instructions are counted boots and serves', async () => {
    await boot('counted', 'shift=2,sleep=on', async (_qemu, _qmp, image) => {
      await expectService(image);
    });
  });

  // Its clock runs so far ahead of its clients' that an answer of theirs comes seconds late: it serves, but slowly.
  it('a guest whose idle clock leaps boots, runs on, and a monitor is heard', async () => {
    await boot('leaping', 'shift=2,sleep=off', async (_qemu, qmp) => {
      expect(await qmp.execute('query-status')).toMatchObject({ running: true });
      await qmp.execute('stop');
      expect(await qmp.execute('query-status')).toMatchObject({ running: false });
      await qmp.execute('cont');
      expect(await qmp.execute('query-status')).toMatchObject({ running: true });
    });
  });
});
