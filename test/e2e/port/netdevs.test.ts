/** Whatever carries a guest's frames, they pass through the port: sockets, taps with virtio-net headers, under a lease. */
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findImage } from '../../../images/index.ts';
import { kindHeaderShift, entryKind, stopReason } from '../../../vmm/io/qemu/layout.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import type { PortLab } from '../../framework/port-lab.ts';
import { guestAddress, hostNetwork, imageArguments } from '../../framework/port-machine.ts';
import { running } from '../../framework/running.ts';
import { serialFile } from '../../framework/port-guest.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const askers = ['10.71.0.77', '10.71.0.78', '10.71.0.79'];
const requests = askers.map((asker) => arpRequest(guestAddress, asker));
/** Of a driver that speaks virtio 1. */
const vnetHeaderBytes = 12;

/** A booted guest whose netdev is `netdev` instead of a tap. */
async function bootWith(lab: PortLab, name: string, netdev: string): Promise<PortGuest> {
  const image = await findImage('memcached');
  const place = { tapName: name, serialFile: serialFile({ folder: lab.folder, name }) };
  const args = imageArguments(image, place);
  const guest = lab.start(
    name,
    args.map((arg, at) => (args[at - 1] === '-netdev' ? netdev : arg)),
  );
  guest.bootUntil(image.readyMarker ?? '');
  guest.port.drop(guest.held.head);
  guest.takeOutput();
  return guest;
}

/** The frames go in as input, are held when answered, and leave when released and not before. */
async function expectPassage(
  guest: PortGuest,
  input: () => void,
  received: () => readonly Uint8Array[],
): Promise<void> {
  guest.port.divertIngress(true);
  input();
  const frames: Uint8Array[] = [];
  const arrived = (async () => {
    while (frames.length < requests.length) {
      frames.push(...guest.takeIngress());
      await new Promise(setImmediate);
    }
  })();
  await running(arrived, () => undefined);
  expect(frames.map((frame) => Buffer.from(frame).toString('hex'))).toEqual(
    requests.map((frame) => Buffer.from(frame).toString('hex')),
  );
  guest.runFor(20e6, frames);
  expect(guest.takeOutput().flatMap((frame) => arpAsker(frame, guestAddress) ?? [])).toEqual(askers);
  expect(received()).toEqual([]);
  expect(guest.port.release(guest.held.head)).toBe(guest.held.head);
  const told = (): string[] => received().flatMap((frame) => arpAsker(frame, guestAddress) ?? []);
  const left = (async () => {
    while (told().length < askers.length) await new Promise(setImmediate);
  })();
  await running(left, () => undefined);
  expect(told()).toEqual(askers);
}

describeInLab('a netdev', (lab) => {
  it('"stream" hands over and holds', async () => {
    const path = join(lab.folder, 'switch.stream');
    const received: Uint8Array[] = [];
    let pending: Buffer = Buffer.alloc(0);
    const server = createServer((socket) => {
      peer = socket;
      socket.on('data', (data) => {
        pending = Buffer.concat([pending, data]);
        while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32BE(0)) {
          const bytes = pending.readUInt32BE(0);
          received.push(pending.subarray(4, 4 + bytes));
          pending = pending.subarray(4 + bytes);
        }
      });
    });
    let peer: Socket | undefined;
    server.listen(path);
    await once(server, 'listening');
    try {
      const netdev = `stream,id=net0,server=off,addr.type=unix,addr.path=${path}`;
      const guest = await bootWith(lab, 'stream', netdev);
      const connected = (async () => {
        while (peer === undefined) await new Promise(setImmediate);
      })();
      await running(connected, () => undefined);
      await expectPassage(
        guest,
        () => {
          for (const frame of requests) {
            const head = Buffer.alloc(4);
            head.writeUInt32BE(frame.length);
            peer?.write(Buffer.concat([head, frame]));
          }
        },
        () => received,
      );
    } finally {
      peer?.destroy();
      server.close();
    }
  });

  it('"tap" does so with virtio-net headers, and frames of another header are not for the guest', async () => {
    const guest = await bootWith(
      lab,
      'vnet',
      'tap,id=net0,ifname=vnet,script=no,downscript=no,vnet_hdr=on,vhost=off',
    );
    const withHeader = requests.map((frame) => Buffer.concat([Buffer.alloc(vnetHeaderBytes), frame]));
    const kind = entryKind.frame | (vnetHeaderBytes << kindHeaderShift);
    const answers = (): string[] =>
      guest.takeOutput().flatMap((frame) => arpAsker(frame.subarray(vnetHeaderBytes), guestAddress) ?? []);
    for (const frame of withHeader) guest.give(kind, frame);
    guest.runFor(20e6);
    expect(answers()).toEqual(askers);
    // Of a driver that spoke otherwise.
    guest.runFor(20e6, requests);
    expect(answers()).toEqual([]);
    expect(guest.deliverTail).toBe(guest.port.deliver.head);
    await lab.bringUp('vnet', hostNetwork);
    guest.port.divertIngress(true);
    await lab.namespace.run('bash', ['-c', 'echo >/dev/udp/10.71.0.99/9']);
    const seen: number[] = [];
    const asked = (async () => {
      while (seen.length === 0) {
        while (guest.port.ingress.next()) {
          seen.push(guest.port.ingress.kind);
          guest.port.ingress.consume();
        }
        await new Promise(setImmediate);
      }
    })();
    await running(asked, () => undefined);
    expect(new Set(seen)).toEqual(new Set([kind]));
    const before = await lab.framesOnTap('vnet');
    const held = guest.held;
    guest.port.release(held.head);
    expect((await lab.framesOnTap('vnet')) - before).toBeGreaterThanOrEqual(askers.length);
  });

  it('carries nothing after the lease has ended, and all of it under the next one', async () => {
    const guest = await lab.boot('lease', 'memcached');
    await lab.bringUp('lease', hostNetwork);
    guest.port.drop(guest.held.head);
    guest.runFor(20e6, requests);
    const { tail, head } = guest.held;
    const before = await lab.framesOnTap('lease');
    guest.port.setLease(process.hrtime.bigint());
    expect(guest.port.release(head)).toBe(tail);
    // Neither as the guest sends it.
    expect(guest.runFor(20e6, requests, true).reason).toBe(stopReason.deadline);
    expect(guest.held.tail).toBe(tail);
    expect(await lab.framesOnTap('lease')).toBe(before);
    guest.port.setLease(process.hrtime.bigint() + 60_000_000_000n);
    expect(guest.port.release(guest.held.head)).toBe(guest.held.head);
    expect((await lab.framesOnTap('lease')) - before).toBeGreaterThanOrEqual(2 * askers.length);
  });

  it('"dgram" hands over and holds', async () => {
    const ports = { guest: 7101, peer: 7102 };
    const netdev = [
      'dgram,id=net0',
      `local.type=inet,local.host=127.0.0.1,local.port=${ports.guest}`,
      `remote.type=inet,remote.host=127.0.0.1,remote.port=${ports.peer}`,
    ].join(',');
    const guest = await bootWith(lab, 'dgram', netdev);
    // Node has no way into another namespace but to be started there.
    const peer = `
      const socket = require('node:dgram').createSocket('udp4');
      const frames = process.argv.slice(1);
      let answers = 0;
      socket.on('message', (frame) => {
        console.log(frame.toString('hex'));
        if (++answers === frames.length) socket.close();
      });
      socket.bind(${ports.peer}, '127.0.0.1', () => {
        for (const frame of frames) socket.send(Buffer.from(frame, 'hex'), ${ports.guest}, '127.0.0.1');
      });`;
    const received: Uint8Array[] = [];
    const words = requests.map((frame) => Buffer.from(frame).toString('hex'));
    let ended: Promise<void> | undefined;
    await expectPassage(
      guest,
      () => {
        ended = lab.namespace.run(process.execPath, ['-e', peer, ...words]).then((lines) => {
          received.push(...lines.split('\n').map((line) => Buffer.from(line, 'hex')));
        });
      },
      () => received,
    );
    await ended;
  });
});
