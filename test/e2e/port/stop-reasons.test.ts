/** What ends a round beside its limits: a guest that powers off, resets itself, breaks, or sends more than is held. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { areaOffset, messageType, stopReason } from '../../../vmm/io/qemu/layout.ts';
import { arpRequest, askerMac } from '../../framework/arp-frame.ts';
import { echoRequest, isEchoReply } from '../../framework/echo-frame.ts';
import { differingPages } from '../../framework/guest-memory.ts';
import { LockstepPair } from '../../framework/lockstep-pair.ts';
import {
  givePortOrder,
  guestAddress,
  portFirmware,
  portOrder,
  portOrderResult,
  writingFirmware,
} from '../../framework/port-machine.ts';
import { access, configurePower, powerPort, ramOf } from '../../framework/port-processor.ts';
import { exchange, portMessage } from '../../framework/port-message.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const roundNs = 1e6;
const asker = '10.71.0.77';
const guestMac = [0x52, 0x54, 0x00, 0x00, 0x71, 0x02];
/** HOLD_BYTES_MAX of QEMU's port. */
const holdBytesMax = 32 << 20;
const pvpanicPort = 0x505;
const resetControlPort = 0xcf9;

/** The order that ends the guest, put where it finds it. */
const endings = {
  'powers itself off': {
    reason: stopReason.shutdown,
    order: { what: portOrder.write16, port: powerPort + 4, value: 1 << 13 },
    refusal: /^The guest has powered off itself: ask for RESET or QUIT$/,
  },
  'resets itself': {
    reason: stopReason.reset,
    order: { what: portOrder.write8, port: resetControlPort, value: 6 },
    refusal: /^The guest has reset itself: ask for RESET or QUIT$/,
  },
} as const;

describeInLab('a guest that', (lab) => {
  for (const lockstep of [true, false]) {
    const mode = lockstep ? 'counted' : 'free';
    it.each(Object.entries(endings))(
      `%s ends the round, and nothing else happens until its agent says so (${mode})`,
      async (what, { reason, order, refusal }) => {
        const guest = lab.startFirmware(`${mode}${reason}`, portFirmware(), { lockstep });
        configurePower(guest);
        for (let times = 0; times < 3; times++) {
          givePortOrder(ramOf(guest), order.what, order.port, order.value);
          const stopped = guest.runWithin({ untilVirtualNs: guest.virtualNs + 2e9 });
          expect(stopped.reason, what).toBe(reason);
          expect(stopped.virtualNs).toBeLessThan(guest.virtualNs + 2e9);
          const run = portMessage(messageType.run, guest.virtualNs + 1e9, guest.port.deliver.head);
          expect(exchange(guest.port.socketFd, run).text).toMatch(refusal);
          guest.hangUp();
          guest.claimAgain();
          expect(exchange(guest.port.socketFd, run).text).toMatch(refusal);
          guest.port.reset();
          expect(guest.runFor(roundNs).reason).toBe(stopReason.deadline);
          configurePower(guest);
          expect(access(guest, portOrder.read16, powerPort + 4)).toBe(0);
        }
        givePortOrder(ramOf(guest), order.what, order.port, order.value);
        expect(guest.runFor(1e9).reason).toBe(reason);
        guest.port.quit();
        expect(await guest.exitCode()).toBe(0);
      },
    );
  }

  it('reports its own panic ends the round, and goes on when told', () => {
    const name = 'panics';
    const guest = lab.start(name, [...lab.firmwareArguments(name, portFirmware()), '-device', 'pvpanic']);
    givePortOrder(ramOf(guest), portOrder.write8, pvpanicPort, 1);
    expect(guest.runFor(1e9).reason).toBe(stopReason.panic);
    expect(guest.runFor(roundNs).reason).toBe(stopReason.deadline);
    expect(portOrderResult(ramOf(guest))).toBeDefined();
  });

  it('is stopped by a debugger ends the round, goes on when told, and no debugger starts it', async () => {
    const name = 'debugged';
    const path = join(lab.folder, `${name}.gdb`);
    const args = [
      ...lab.firmwareArguments(name, writingFirmware()),
      '-gdb',
      `unix:${path},server=on,wait=off`,
    ];
    const guest = lab.start(name, args);
    guest.begin(0);
    const debuggerSocket = connect(path);
    try {
      await once(debuggerSocket, 'connect');
      const stopped = guest.awaitStopped();
      expect(stopped.reason).toBe(stopReason.foreign);
      expect(guest.runFor(roundNs)).toMatchObject({
        reason: stopReason.deadline,
        virtualNs: stopped.virtualNs + roundNs,
      });
      // "Go on", and QEMU's acknowledgement of it.
      debuggerSocket.write('$c#63');
      await once(debuggerSocket, 'data');
      expect(guest.port.stop().virtualNs).toBe(guest.virtualNs);
      expect(guest.runFor(roundNs).reason).toBe(stopReason.deadline);
    } finally {
      debuggerSocket.destroy();
    }
  });

  it('stands is reset by its agent as it was at first', () => {
    const guest = lab.startFirmware('reset', portFirmware());
    configurePower(guest);
    expect(access(guest, portOrder.read16, powerPort + 4)).toBe(0);
    guest.port.reset();
    expect(access(guest, portOrder.read16, powerPort + 4)).toBe(0xffff);
  });

  it('is one of two in lockstep ends at the very same instant as the other, and both reset alike', () => {
    const pair = LockstepPair.clone(
      lab.startFirmware('left', portFirmware()),
      lab.startFirmware('right', portFirmware()),
    );
    for (const { reason, order } of Object.values(endings)) {
      for (const guest of pair.guests) configurePower(guest);
      for (const guest of pair.guests) givePortOrder(ramOf(guest), order.what, order.port, order.value);
      const [left, right] = pair.round(1e9, []).stopped;
      expect(left).toMatchObject({ reason });
      expect(right).toEqual(left);
      for (const guest of pair.guests) guest.port.reset();
      const after = pair.round(roundNs, []).stopped;
      expect(after[0]).toMatchObject({ reason: stopReason.deadline });
      expect(after[1]).toEqual(after[0]);
      expect(differingPages(pair.leader.port, pair.backup.port)).toEqual([]);
    }
  });
});

describe.each([{ lockstep: true }, { lockstep: false }])(
  'more output than is held (lockstep: $lockstep)',
  (profile) => {
    describeInLab('ends rounds', (lab) => {
      it('and no frame is lost to QEMU until the agent has made room', async () => {
        const guest = await lab.boot('guest', 'memcached', { ...profile, hostTscKhz: 2_000_000 });
        const request = echoRequest(guestAddress, asker, { guest: guestMac, asker: askerMac }, 1400);
        // The question keeps the guest sure of where the asker is.
        const burst = [arpRequest(guestAddress, asker), ...Array.from({ length: 200 }, () => request)];
        guest.runFor(5e6, [arpRequest(guestAddress, asker)]);
        guest.port.drop(guest.held.head);
        guest.takeOutput();
        let sent = 0;
        let replies = 0;
        let full = 0;
        while (full < 2) {
          const room = guest.deliverTail === guest.port.deliver.head;
          const stopped = guest.runFor(10e6, room ? burst : []);
          if (room) sent += burst.length - 1;
          if (stopped.reason !== stopReason.holdFull) continue;
          full++;
          expect(stopped.holdHead - guest.held.tail).toBeGreaterThan(holdBytesMax);
          // Without room, rounds end before they begin.
          const again = guest.runFor(5e6);
          expect(again).toEqual(stopped);
          replies += guest.takeOutput().filter(isEchoReply).length;
          guest.port.drop(guest.held.head);
        }
        while (guest.deliverTail !== guest.port.deliver.head || !guest.runFor(5e6).idle) guest.runFor(5e6);
        replies += guest.takeOutput().filter(isEchoReply).length;
        // A free-running guest may lose some itself, when its own queue is full.
        if (profile.lockstep) expect(replies).toBe(sent);
        expect(new DataView(guest.area).getBigUint64(areaOffset.holdDropped, true)).toBe(0n);
      });
    });
  },
);
