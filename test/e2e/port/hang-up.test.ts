/** An agent that dies: its guest stands still, sends nothing, and waits for the next agent for a while. */
import { beforeAll, expect, it } from 'vitest';
import { countBits } from '../../../merkle/bitmap.ts';
import { native } from '../../../native/binding.ts';
import {
  loadKeepCode,
  messageType,
  runRelease,
  status,
  stopReason,
  version,
} from '../../../vmm/io/qemu/layout.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { MemoryCopy } from '../../framework/guest-memory.ts';
import { exchange, portMessage } from '../../framework/port-message.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress, haltingFirmware, hostNetwork, writingFirmware } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';
import { changeWriter, writerCode, writeWord } from '../../framework/writer-guest.ts';

const askers = Array.from({ length: 200 }, (_, number) => `10.71.0.${10 + number}`);
const unclaimedMs = 500;
const firstAnswerLimitMs = 10_000;
const doorbellTimeoutUs = 20_000_000;

function answered(guest: PortGuest): string[] {
  return guest.takeOutput().flatMap((frame) => arpAsker(frame, guestAddress) ?? []);
}

describeInLab('when the agent hangs up', (lab) => {
  let guest: PortGuest;

  beforeAll(async () => {
    guest = await lab.boot('guest', 'memcached');
    await lab.bringUp('guest', hostNetwork);
  });

  /** The guest answers everybody who asked: what `before` the hang-up and what from now on. */
  function expectAllAnswered(before: readonly string[]): void {
    const all = [...before];
    for (let round = 0; all.length < askers.length && round < 100; round++) {
      guest.runFor(1e6);
      all.push(...answered(guest));
    }
    expect(all).toEqual(askers);
    guest.port.drop(guest.held.head);
  }

  it('in the midst of a round, the guest stands, nothing more goes out, and a new agent goes on from there', async () => {
    const onTapBefore = await lab.framesOnTap('guest');
    const requests = askers.map((asker) => arpRequest(guestAddress, asker));
    guest.begin(0, requests, true);
    // Not at once: some answers shall be out already.
    const begun = performance.now();
    while (guest.held.tail === 0 && performance.now() - begun < firstAnswerLimitMs);
    guest.hangUp();
    const port = guest.greetAgain();
    const copy = new MemoryCopy(port);
    const { head, tail } = guest.held;
    const onTap = await lab.framesOnTap('guest');
    const sent = answered(guest);
    expect(sent.length).toBeGreaterThan(0);
    // Whole processes have come and gone meanwhile.
    expect(countBits(copy.renew())).toBe(0);
    expect(await lab.framesOnTap('guest')).toBe(onTap);
    expect(onTap - onTapBefore).toBeLessThanOrEqual(sent.length);

    guest.claimAgain(port);
    expect(guest.held).toEqual({ head, tail });
    expect(await lab.framesOnTap('guest')).toBe(onTap);
    expectAllAnswered(sent);
    expect(await lab.framesOnTap('guest')).toBe(onTap);
  });

  it('between two rounds, the next agent finds the guest and its held output as they were', () => {
    const requests = askers.map((asker) => arpRequest(guestAddress, asker));
    const stopped = guest.runFor(1e6, requests);
    guest.hangUp();
    guest.claimAgain();
    expect(guest.virtualNs).toBe(stopped.virtualNs);
    expect(guest.deliverTail).toBe(stopped.deliverTail);
    expect(guest.held.head).toBe(stopped.holdHead);
    expect(guest.held.tail).toBeLessThan(stopped.holdHead);
    expectAllAnswered([]);
  });

  it('input from the tap is discarded until the next agent wants it', async () => {
    /** Makes the host ask for an address that nobody has, and waits until QEMU has read the question. */
    const askFor = async (address: string): Promise<void> => {
      const readBefore = await lab.framesFromTap('guest');
      await lab.namespace.run('bash', ['-c', `echo >/dev/udp/${address}/9`]);
      while ((await lab.framesFromTap('guest')) === readBefore);
    };
    guest.port.divertIngress(true);
    await askFor('10.71.0.201');
    native().waitReadable(Int32Array.of(guest.port.doorbellFd), new Uint8Array(1), doorbellTimeoutUs);
    expect(guest.takeIngress().length).toBeGreaterThan(0);
    guest.hangUp();
    const port = guest.greetAgain();
    await askFor('10.71.0.202');
    guest.claimAgain(port);
    await askFor('10.71.0.203');
    expect(guest.takeIngress()).toEqual([]);
    guest.port.divertIngress(true);
    await askFor('10.71.0.204');
    native().waitReadable(Int32Array.of(guest.port.doorbellFd), new Uint8Array(1), doorbellTimeoutUs);
    expect(guest.takeIngress().length).toBeGreaterThan(0);
  });

  it('whoever connects must claim the guest before anything else', () => {
    const { virtualNs } = guest;
    guest.hangUp();
    const port = guest.greetAgain();
    const { welcome, quit, ...others } = messageType;
    expect([welcome, quit]).toEqual([2, 12]);
    for (const type of Object.values(others)) {
      const answer = exchange(port.socketFd, portMessage(type, virtualNs + 1e6, port.deliver.head));
      expect(answer).toMatchObject({ type, status: status.refused });
      expect(answer.text).toBe('The guest is not claimed: begin with WELCOME');
    }
    guest.claimAgain(port);
    expect(guest.virtualNs).toBe(virtualNs);
  });

  // A guest that was reset would have to boot again; one that quits is nobody's.
  it.each(Object.entries(messageType).filter(([name]) => name !== 'quit' && name !== 'reset'))(
    'right after asking for "%s", the guest is the next agent’s all the same',
    (_name, type) => {
      const { deviceState, deliver, socketFd } = guest.port;
      guest.port.pause();
      const { bytes, checksum } = guest.port.save();
      expect(deviceState.length).toBeGreaterThan(bytes);
      const values: Readonly<Record<number, readonly number[]>> = {
        [messageType.run]: [0, deliver.head, 1, runRelease],
        [messageType.load]: [bytes, checksum],
        [messageType.release]: [guest.held.head],
        [messageType.drop]: [guest.held.head],
        [messageType.welcome]: [version],
        [messageType.deliver]: [deliver.head],
      };
      native().portSend(socketFd, portMessage(type, ...(values[type] ?? [])));
      guest.hangUp();
      guest.claimAgain();
      guest.takeOutput();
      guest.runFor(
        1e6,
        askers.map((asker) => arpRequest(guestAddress, asker)),
      );
      expectAllAnswered(answered(guest));
    },
  );

  it('while nothing may touch the guest, everybody may again, and the next agent goes on', async () => {
    guest.runFor(1e6);
    guest.port.collect();
    guest.hangUp();
    guest.claimAgain();
    const read = await lab.framesFromTap('guest');
    await lab.namespace.run('bash', ['-c', 'echo >/dev/udp/10.71.0.210/9']);
    while ((await lab.framesFromTap('guest')) === read);
    guest.takeOutput();
    guest.runFor(
      1e6,
      askers.map((asker) => arpRequest(guestAddress, asker)),
    );
    expectAllAnswered(answered(guest));
  });

  it('dirty pages that it never collected are the next agent’s', () => {
    guest.port.collect();
    const copy = new MemoryCopy(guest.port);
    guest.runFor(1e6, [arpRequest(guestAddress, '10.71.0.77')]);
    guest.hangUp();
    guest.claimAgain();
    copy.follow(guest.port);
    const changed = copy.renew();
    expect(countBits(changed)).toBeGreaterThan(0);
    guest.port.collect();
    expect(copy.missing(changed, guest.port.dirtyBitmap)).toEqual([]);
  });
});

describeInLab('when the agent dies right after asking', (lab) => {
  function start(name: string): PortGuest {
    const guest = lab.startFirmware(name, haltingFirmware());
    guest.runFor(1e6);
    return guest;
  }

  it('for a reset, the guest is reset, and the next agent runs it', () => {
    const guest = start('reset');
    native().portSend(guest.port.socketFd, portMessage(messageType.reset));
    guest.hangUp();
    guest.claimAgain();
    expect(guest.runFor(1e6).reason).toBe(stopReason.deadline);
  });

  it('for the end, QEMU ends in good order', async () => {
    const guest = start('quit');
    native().portSend(guest.port.socketFd, portMessage(messageType.quit));
    guest.hangUp();
    expect(await guest.exitCode()).toBe(0);
  });

  it('for a state that is cut short, the guest stays unusable for the next agent', () => {
    const guest = start('short');
    guest.port.pause();
    const { bytes } = guest.port.save();
    const checksum = native().crc32c(guest.port.deviceState.subarray(0, bytes - 100), 0);
    native().portSend(guest.port.socketFd, portMessage(messageType.load, bytes - 100, checksum));
    guest.hangUp();
    guest.claimAgain();
    const run = portMessage(messageType.run, guest.virtualNs + 1e6, guest.port.deliver.head);
    expect(exchange(guest.port.socketFd, run)).toMatchObject({ status: status.unusable });
  });

  it('for a load that keeps translations, whose pages it never names, the next one’s load drops them', () => {
    const guest = lab.startFirmware('kept', writingFirmware());
    expect(writeWord(guest, 9)).toBe(9);
    guest.port.pause();
    const { bytes, checksum } = guest.port.save();
    changeWriter(guest, writerCode.adds, writerCode.subtracts);
    native().portSend(guest.port.socketFd, portMessage(messageType.load, bytes, checksum, loadKeepCode));
    guest.hangUp();
    guest.claimAgain();
    // That it goes on with what it has translated shows that translations were kept.
    expect(writeWord(guest, 2)).toBe(11);
    guest.port.pause();
    const again = guest.port.save();
    guest.port.load(again.bytes, again.checksum);
    expect(writeWord(guest, 2)).toBe(9);
  });

  it('for nothing, before it has claimed the guest, another one may', () => {
    const guest = start('greeted');
    guest.hangUp();
    guest.greetAgain().close();
    guest.claimAgain();
    expect(guest.runFor(1e6).reason).toBe(stopReason.deadline);
  });
});

describeInLab('a guest that nobody claims', (lab) => {
  const complaint = `no agent claimed the guest for ${unclaimedMs} ms, exiting`;
  const portOptions = `unclaimed-ms=${unclaimedMs}`;

  it('ends with an error when its time is up, and not before', async () => {
    const guest = lab.startFirmware('unclaimed', haltingFirmware(), {}, { portOptions });
    guest.runFor(1e6);
    const begun = performance.now();
    guest.hangUp();
    expect(await guest.exitCode()).toBe(1);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(unclaimedMs);
    expect(guest.errors).toContain(complaint);
  });

  it('does not take a connection for a claim: who says no WELCOME has none', async () => {
    const guest = lab.startFirmware('silent', haltingFirmware(), {}, { portOptions });
    guest.hangUp();
    const silent = guest.greetAgain();
    expect(await guest.exitCode()).toBe(1);
    expect(guest.errors).toContain(complaint);
    silent.close();
  });

  it('has its whole time again after each claim', () => {
    const guest = lab.startFirmware('claimed', haltingFirmware(), {}, { portOptions });
    const begun = performance.now();
    for (let claims = 0; performance.now() - begun < 3 * unclaimedMs; claims++) {
      guest.hangUp();
      guest.claimAgain();
      expect(guest.runFor(1e6).virtualNs).toBe((claims + 1) * 1e6);
    }
  });
});
