/** A round ends at its virtual instant: that is what makes two guests comparable at all. */
import { beforeAll, expect, it } from 'vitest';
import { messageType, stopReason } from '../../../vmm/io/qemu/layout.ts';
import type { Stopped } from '../../../vmm/io/qemu/port.ts';
import { arpRequest } from '../../framework/arp-frame.ts';
import { exchange, portMessage } from '../../framework/port-message.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import {
  giveOrder,
  guestAddress,
  haltingFirmware,
  lastOrder,
  writingFirmware,
} from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const rounds = 200;
/** One instruction, at the profile's icount shift. */
const instructionNs = 4;

/** 200 lengths from a few instructions to 3 ms, no two alike, most of them no multiple of an instruction. */
const lengthsNs = Array.from(
  { length: rounds },
  (_, number) => 13 + Math.round(1.0632 ** number * 15) + number,
);

describeInLab('a round ends', (lab) => {
  let guest: PortGuest;

  beforeAll(async () => {
    guest = await lab.boot('guest', 'memcached');
  });

  /** Runs all the rounds, each with what `framesOf` gives. */
  function run(framesOf: (number: number) => Uint8Array[]): { stops: Stopped[]; lateNs: number[] } {
    const lateNs: number[] = [];
    const stops = lengthsNs.map((ns, number) => {
      const untilNs = guest.virtualNs + ns;
      const stopped = guest.runUntil(untilNs, framesOf(number));
      lateNs.push(stopped.virtualNs - untilNs);
      return stopped;
    });
    return { stops, lateNs };
  }

  it(`of a busy guest at its instant, to the instruction, ${rounds} times at ${rounds} lengths`, () => {
    const request = arpRequest(guestAddress, '10.71.0.77');
    const { stops, lateNs } = run(() => [request, request, request, request]);
    expect(stops.filter(({ idle }) => !idle).length).toBeGreaterThan(rounds / 2);
    expect(stops.every(({ reason }) => reason === stopReason.deadline)).toBe(true);
    expect(Math.min(...lateNs)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...lateNs)).toBeLessThan(instructionNs);
  });

  it('of a guest left alone at its very instant, and the guest is called idle', () => {
    while (!guest.runFor(10e6).idle);
    const { stops, lateNs } = run(() => []);
    // Now and then the guest wakes for its own housekeeping.
    expect(stops.filter(({ idle }) => idle).length).toBeGreaterThan(0.9 * rounds);
    expect(stops.every(({ reason }) => reason === stopReason.deadline)).toBe(true);
    expect(lateNs.filter((late, number) => late !== 0 && stops[number]?.idle === true)).toEqual([]);
  });

  it('at once and without a step when its instant has passed', () => {
    const { virtualNs } = guest;
    expect(guest.runUntil(virtualNs - 1e6).virtualNs).toBe(virtualNs);
    expect(guest.runUntil(1).virtualNs).toBe(virtualNs);
  });

  it('by a pause when it has no instant, and both are answered with the same place', () => {
    guest.begin(0);
    const paused = guest.port.pause();
    const stopped = guest.port.takeStopped();
    expect(stopped).toEqual({ ...paused, reason: stopReason.pause });
    expect(paused.virtualNs).toBeGreaterThanOrEqual(guest.virtualNs);
    // A guest that stands already stands where it stood.
    expect(guest.port.pause()).toEqual(paused);
    guest.stateLoaded(paused.virtualNs);
  });

  it('with the number that the agent gave it', () => {
    const run = portMessage(messageType.run, guest.virtualNs + 1e6, guest.port.deliver.head, 2 ** 40 + 1);
    expect(exchange(guest.port.socketFd, run).arguments[5]).toBe(2 ** 40 + 1);
  });

  it('of a halted processor always idle, of a spinning one never', () => {
    const halted = lab.startFirmware('halted', haltingFirmware());
    const spinning = lab.startFirmware('spinning', writingFirmware());
    const idle = (guest: PortGuest): Set<boolean> => {
      return new Set(lengthsNs.map((ns) => guest.runFor(Math.max(ns, 1000)).idle));
    };
    expect(idle(halted)).toEqual(new Set([true]));
    expect(idle(spinning)).toEqual(new Set([false]));
    const ram = spinning.port.blocks.find(({ name }) => name === 'ram0');
    giveOrder(ram?.memory ?? new ArrayBuffer(), lastOrder, []);
    spinning.runFor(1e6);
    expect(idle(spinning)).toEqual(new Set([true]));
  });
});
