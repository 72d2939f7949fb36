/**
 * The stop between two rounds is light: neither monitors nor devices hear of it. A load tells the devices, a pause tells
 * both.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { PortGuest } from '../../framework/port-guest.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { QmpClient } from '../../framework/qmp-client.ts';

const rounds = 50;

/** The eventfds that QEMU has open, by number: among them one for each queue that the guest kicks. */
function eventfds({ pid }: PortGuest): string[] {
  const folder = `/proc/${pid}/fdinfo`;
  return readdirSync(folder)
    .flatMap((fd) => {
      const id = /^eventfd-id:\s*(\d+)$/m.exec(readFileSync(join(folder, fd), 'utf8'))?.[1];
      return id === undefined ? [] : [`${fd} is ${id}`];
    })
    .sort();
}

describeInLab('a free-running guest on a pc', (lab) => {
  let guest: PortGuest;
  let qmp: QmpClient;

  beforeAll(async () => {
    const qmpPath = join(lab.folder, 'guest.qmp');
    guest = await lab.boot('guest', 'memcached', { lockstep: false, qmpPath });
    qmp = await QmpClient.connect(qmpPath);
  });

  /** Starts a round, which QEMU has begun when it takes more for it. */
  function run(): void {
    guest.beginWithin({});
    guest.port.deliverLive(guest.port.deliver.head);
  }

  /** What QEMU has told its monitor since it was last asked. */
  async function toldEvents(): Promise<string[]> {
    await qmp.execute('query-status');
    return qmp.events.splice(0);
  }

  it(`runs, stops and is collected ${rounds} times, and no monitor and no device hears of it`, async () => {
    run();
    const running = eventfds(guest);
    guest.port.stop();
    await toldEvents();
    for (let round = 0; round < rounds; round++) {
      run();
      expect(eventfds(guest), `running, round ${round}`).toEqual(running);
      guest.port.stop();
      guest.port.collect();
      expect(eventfds(guest), `collected, round ${round}`).toEqual(running);
    }
    run();
    expect(await toldEvents()).toEqual([]);
    guest.port.stop();
    expect(await toldEvents()).toEqual([]);
  });

  it('is given a state and runs on, and only its devices hear of it', async () => {
    run();
    const running = eventfds(guest);
    await toldEvents();
    guest.port.stop();
    const { bytes, checksum } = guest.port.save();
    expect(eventfds(guest)).toEqual(running);
    guest.port.load(bytes, checksum);
    expect(eventfds(guest).length).toBeLessThan(running.length);
    run();
    expect(eventfds(guest)).toHaveLength(running.length);
    guest.port.stop();
    expect(await toldEvents()).toEqual([]);
  });

  it('is paused and runs on, and both hear of it', async () => {
    run();
    const running = eventfds(guest);
    await toldEvents();
    guest.port.pause();
    expect(eventfds(guest).length).toBeLessThan(running.length);
    expect(await toldEvents()).toEqual(['STOP']);
    run();
    expect(eventfds(guest)).toHaveLength(running.length);
    expect(await toldEvents()).toEqual(['RESUME']);
    guest.port.stop();
    qmp.close();
  });
});
