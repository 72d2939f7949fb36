/** An agent for which input would change nothing is not woken by it, and QEMU leaves it where it is while a round runs. */
import { expect, it } from 'vitest';
import { native } from '../../../native/binding.ts';
import { guestAddress, haltingFirmware, hostNetwork } from '../../framework/port-machine.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import { running } from '../../framework/running.ts';
import { describeInLab } from '../../framework/port-suite.ts';

async function start(lab: PortLab, name: string): Promise<PortGuest> {
  const guest = lab.startFirmware(name, haltingFirmware());
  await lab.bringUp(name, hostNetwork);
  guest.port.divertIngress(true);
  await arrival(guest, lab); // Whatever the host says by itself as a link comes up is among the first.
  guest.takeIngress();
  return guest;
}

/** The host has sent a frame: it lies in the tap's queue, or has been read. */
async function send(lab: PortLab): Promise<void> {
  await lab.namespace.run('ip', ['neighbour', 'flush', 'all']);
  await lab.namespace.run('bash', ['-c', `echo >/dev/udp/${guestAddress}/9`]);
}

async function arrival(guest: PortGuest, lab: PortLab): Promise<void> {
  await send(lab);
  await comesIn(guest);
}

async function comesIn(guest: PortGuest): Promise<void> {
  const arrived = (async () => {
    while (!guest.port.ingress.hasEntry) await new Promise(setImmediate);
  })();
  await running(arrived, () => undefined);
}

/** QEMU's main loop looks for work at least once between two answers. */
function askTwice(guest: PortGuest): void {
  for (let time = 0; time < 2; time++) guest.port.deliverLive(guest.port.deliver.head);
}

function doorbellRang(guest: PortGuest): boolean {
  return native().waitReadable(Int32Array.of(guest.port.doorbellFd), new Uint8Array(1), 0) > 0;
}

describeInLab('input that can wait', (lab) => {
  it('stays with the host while a round runs, and comes in when that has ended', async () => {
    const guest = await start(lab, 'waits');
    native().drain(guest.port.doorbellFd);
    guest.port.ingressQuiet = true;
    guest.beginWithin({ realNsMax: 60e9 });
    const before = await lab.framesFromTap('waits');
    await send(lab);
    askTwice(guest);
    expect(guest.port.ingress.hasEntry).toBe(false);
    expect(await lab.framesFromTap('waits')).toBe(before);
    guest.port.stop();
    await comesIn(guest);
    expect(doorbellRang(guest)).toBe(false);
    // The next round is heeded.
    guest.takeIngress();
    guest.port.ingressQuiet = false;
    guest.beginWithin({ realNsMax: 60e9 });
    await arrival(guest, lab);
    expect(doorbellRang(guest)).toBe(true);
    guest.port.stop();
  });

  it('is taken in at once when the agent asks again what comes', async () => {
    const guest = await start(lab, 'asks');
    guest.port.ingressQuiet = true;
    guest.beginWithin({ realNsMax: 60e9 });
    await send(lab);
    askTwice(guest);
    expect(guest.port.ingress.hasEntry).toBe(false);
    guest.port.ingressQuiet = false;
    guest.port.divertIngress(true);
    await comesIn(guest);
    guest.port.stop();
  });

  it('rings no doorbell between rounds, and is there', async () => {
    const guest = await start(lab, 'stands');
    native().drain(guest.port.doorbellFd);
    guest.port.ingressQuiet = true;
    await arrival(guest, lab);
    expect(doorbellRang(guest)).toBe(false);
  });
});
