/** Requests that make no sense: QEMU says so, does nothing of them, and the guest goes on. */
import { beforeAll, beforeEach, expect, it } from 'vitest';
import { native } from '../../../native/binding.ts';
import { readUint64, writeUint64 } from '../../../vmm/core/falcon/record.ts';
import {
  areaOffset,
  entryHeaderBytes,
  entryKind,
  frameBytesMax,
  kindHeaderShift,
  messageBytes,
  messageOffset,
  messageType,
  runRelease,
  ringOffset,
  ringHeaderBytes,
  ringIndex,
  status,
  version,
} from '../../../vmm/io/qemu/layout.ts';
import { arpAsker, arpRequest } from '../../framework/arp-frame.ts';
import { exchange, nextAnswer, portMessage, type PortAnswer } from '../../framework/port-message.ts';
import type { PortGuest } from '../../framework/port-guest.ts';
import { guestAddress, haltingFirmware } from '../../framework/port-machine.ts';
import { describeInLab } from '../../framework/port-suite.ts';

const asker = '10.71.0.77';
const sequence = 0x5eed;

/** What must not change when a request is refused. */
function position(guest: PortGuest): object {
  return { deliverTail: guest.deliverTail, ...guest.held };
}

/** Runs the guest until it answers a question about its address. */
function expectLife(guest: PortGuest): void {
  guest.takeOutput();
  const request = arpRequest(guestAddress, asker);
  for (let round = 0; round < 50; round++) {
    guest.runFor(1e6, round === 0 ? [request] : []);
    if (guest.takeOutput().some((frame) => arpAsker(frame, guestAddress) === asker)) {
      guest.port.drop(guest.held.head);
      return;
    }
  }
  throw new Error(`Guest ${guest.name} does not answer any more`);
}

/** The header of an entry of the hold ring, as QEMU will read it. */
function heldEntry(guest: PortGuest, position: number): DataView {
  const ring = readUint64(new DataView(guest.area), areaOffset.ringOffset + 8 * ringIndex.hold);
  const capacity = new DataView(guest.area).getUint32(ring + ringOffset.capacity, true);
  return new DataView(guest.area, ring + ringHeaderBytes + (position & (capacity - 1)), entryHeaderBytes);
}

function expectRefused(answer: PortAnswer, text: RegExp, type: number): void {
  expect(answer).toMatchObject({ type, sequence, status: status.refused });
  expect(answer.text).toMatch(text);
}

describeInLab('a request without sense', (lab) => {
  let guest: PortGuest;
  let before: { readonly place: object; readonly virtualNs: number };

  beforeAll(async () => {
    guest = await lab.boot('guest', 'memcached');
  });

  beforeEach(() => {
    expectLife(guest);
    before = { place: position(guest), virtualNs: guest.virtualNs };
  });

  /** Asks for what cannot be: it is refused, nothing has moved, and the guest lives. */
  function refused(type: number, values: readonly number[], text: RegExp): void {
    expectRefused(exchange(guest.port.socketFd, portMessage(type, ...values)), text, type);
    expect(position(guest)).toEqual(before.place);
    expect(guest.port.pause().virtualNs).toBe(before.virtualNs);
    expectLife(guest);
  }

  /** Writes an entry's header at the deliver ring's head plus `offset`, where the guest has nothing to take yet. */
  function writeEntry(offset: number, bytes: number, kind: number): void {
    const { data, head } = guest.port.deliver;
    const at = (head + offset) & (data.length - 1);
    const view = new DataView(data.buffer, data.byteOffset);
    view.setUint32(at, bytes, true);
    view.setUint32(at + 4, kind, true);
  }

  const frameEntryBytes = entryHeaderBytes + 64;
  it.each<[string, { bytes: number; kind: number; head: number }]>([
    [
      'a frame of more bytes than any has',
      { bytes: frameBytesMax + 8, kind: entryKind.frame, head: frameBytesMax + 16 },
    ],
    ['an empty frame', { bytes: 0, kind: entryKind.frame, head: entryHeaderBytes }],
    ['a frame that ends behind the head', { bytes: 64, kind: entryKind.frame, head: frameEntryBytes - 8 }],
    ['padding that ends behind the head', { bytes: 128, kind: entryKind.pad, head: frameEntryBytes }],
    [
      'a frame of 4 GiB, rounded up to nothing',
      { bytes: 0xffff_ffff, kind: entryKind.frame, head: frameEntryBytes },
    ],
    ['an entry of unknown kind', { bytes: 64, kind: 7, head: frameEntryBytes }],
    ['a power button with a payload', { bytes: 64, kind: entryKind.power, head: frameEntryBytes }],
    ['a reset with a payload', { bytes: 64, kind: entryKind.reset, head: frameEntryBytes }],
    ['a cable of 64 bytes', { bytes: 64, kind: entryKind.link, head: frameEntryBytes }],
    ['a cable that is neither in nor out', { bytes: 0, kind: entryKind.link, head: entryHeaderBytes }],
    [
      'input for a serial line that the port lacks',
      { bytes: 64, kind: entryKind.serial, head: frameEntryBytes },
    ],
    [
      'a frame that is nothing but its virtio-net header',
      { bytes: 12, kind: entryKind.frame | (12 << kindHeaderShift), head: entryHeaderBytes + 16 },
    ],
    [
      'a power button with a virtio-net header',
      { bytes: 0, kind: entryKind.power | (12 << kindHeaderShift), head: entryHeaderBytes },
    ],
    ['half a header', { bytes: 0, kind: entryKind.pad, head: 4 }],
  ])('%s in the deliver ring: the round does not begin', (_what, { bytes, kind, head }) => {
    writeEntry(0, bytes, kind);
    const until = guest.virtualNs + 1e6;
    refused(
      messageType.run,
      [until, guest.port.deliver.head + head],
      /Not run: the deliver ring holds a malformed/,
    );
  });

  it('a good frame in front of a malformed one is not delivered', () => {
    const frame = arpRequest(guestAddress, asker);
    guest.port.deliver.data.set(frame, guest.port.deliver.reserve(frame.length));
    writeEntry(0, frame.length, entryKind.frame);
    writeEntry(frameEntryBytes, 64, 7);
    const until = guest.virtualNs + 1e6;
    refused(messageType.run, [until, guest.port.deliver.head + 2 * frameEntryBytes], /malformed/);
  });

  it('an entry beyond the end of the deliver ring is refused, and one that fills it is not', () => {
    const { deliver } = guest.port;
    const toEnd = deliver.data.length - (deliver.head & (deliver.data.length - 1));
    writeEntry(0, toEnd, entryKind.pad);
    const until = guest.virtualNs + 1e6;
    refused(messageType.run, [until, deliver.head + toEnd + entryHeaderBytes], /malformed/);
    // `refused` let the guest take one more frame.
    const rest = deliver.data.length - (deliver.head & (deliver.data.length - 1));
    writeEntry(0, rest - entryHeaderBytes, entryKind.pad);
    deliver.moveTo(deliver.head, deliver.head + rest);
    deliver.moveTo(guest.runFor(1e6).deliverTail, deliver.head);
    expect(guest.deliverTail % deliver.data.length).toBe(0);
    expectLife(guest);
  });

  it.each<[string, number]>([
    ['beyond the capacity', (4 << 20) + 8],
    ['behind the tail', -8],
    ['that no 32-bit position is', 2 ** 32],
  ])('a deliver head %s: the round does not begin', (_what, offset) => {
    refused(
      messageType.run,
      [guest.virtualNs + 1e6, guest.port.deliver.head + offset],
      /Not run: the deliver head/,
    );
  });

  it('a guest that stands is given nothing at once', () => {
    refused(
      messageType.deliver,
      [guest.port.deliver.head],
      /The guest stands: it is given its inputs by RUN/,
    );
  });

  it.each<[string, number, number]>([
    ['an entry of unknown kind', 7, frameEntryBytes],
    ['an entry that ends behind the head', entryKind.frame, frameEntryBytes - 8],
  ])('%s is not given to a guest that runs, which runs on', (_what, kind, head) => {
    writeEntry(0, 64, kind);
    const { deliverTail } = guest;
    guest.beginWithin({});
    const deliver = portMessage(messageType.deliver, guest.port.deliver.head + head);
    expectRefused(
      exchange(guest.port.socketFd, deliver),
      /Not delivered: the deliver ring/,
      messageType.deliver,
    );
    guest.stateLoaded(guest.port.pause().virtualNs);
    guest.takeStopped();
    expect(guest.deliverTail).toBe(deliverTail);
    expectLife(guest);
  });

  it.each<[string, number, number]>([
    ['an entry longer than the ring', 0xffff_fff8, entryKind.frame],
    ['a frame of more bytes than any has', frameBytesMax + 8, entryKind.frame],
    ['an empty frame', 0, entryKind.frame],
  ])('%s in the hold ring is not sent, and nothing behind it', (_what, bytes, kind) => {
    guest.runFor(2e6, [arpRequest(guestAddress, asker)]);
    const { head, tail } = guest.held;
    expect(head).toBeGreaterThan(tail);
    const entry = heldEntry(guest, tail);
    const good = [entry.getUint32(0, true), entry.getUint32(4, true)] as const;
    entry.setUint32(0, bytes, true);
    entry.setUint32(4, kind, true);
    const answer = exchange(guest.port.socketFd, portMessage(messageType.release, head));
    expect(answer).toMatchObject({ status: status.ok });
    expect(answer.arguments.slice(0, 2)).toEqual([tail, 0]);
    entry.setUint32(0, good[0], true);
    entry.setUint32(4, good[1], true);
    expect(guest.port.release(head)).toBe(head);
  });

  it('an agent of another layout version is refused, and the guest stays with the one it has', () => {
    refused(
      messageType.welcome,
      [version + 1],
      /^The agent speaks version \d+ of the layout, this QEMU \d+$/,
    );
  });

  it.each<[string, number, number]>([
    ['released beyond the head', messageType.release, 8],
    ['dropped beyond the head', messageType.drop, 8],
    ['released again behind the tail', messageType.release, -8],
    ['dropped again behind the tail', messageType.drop, -8],
    ['released up to what no position is', messageType.release, 2 ** 40],
    ['dropped up to what no position is', messageType.drop, 2 ** 40],
  ])('output cannot be %s', (_what, type, offset) => {
    refused(type, [guest.held.head + offset], /is not between tail \d+ and head \d+ of the hold ring/);
  });

  it('a release that ends in the midst of a frame stops in front of it', () => {
    guest.runFor(2e6, [arpRequest(guestAddress, asker)]);
    const { head, tail } = guest.held;
    expect(head).toBeGreaterThan(tail);
    const answer = exchange(guest.port.socketFd, portMessage(messageType.release, head - 8));
    expect(answer).toMatchObject({ status: status.ok });
    expect(answer.arguments.slice(0, 2)).toEqual([tail, 0]);
    expect(guest.held).toEqual({ head, tail });
    guest.port.release(head);
  });

  it.each<[string, number]>([
    ['collected', messageType.collect],
    ['reset', messageType.reset],
    ['saved', messageType.save],
    ['loaded', messageType.load],
    ['changed', messageType.invalidate],
    ['run once more', messageType.run],
  ])('a guest that runs cannot be %s', (_what, type) => {
    guest.begin(0);
    const answer = exchange(guest.port.socketFd, portMessage(type, 0, guest.port.deliver.head));
    expectRefused(answer, /The guest runs/, type);
    expect(guest.port.pause().virtualNs).toBeGreaterThanOrEqual(before.virtualNs);
    guest.stateLoaded(guest.port.pause().virtualNs);
    expectLife(guest);
  });

  it.each<[string, (saved: { bytes: number; checksum: number }) => [number, number]]>([
    ['with another checksum', ({ bytes, checksum }) => [bytes, checksum ^ 1]],
    ['cut short', ({ bytes, checksum }) => [bytes - 1, checksum]],
    ['of no length', ({ checksum }) => [0, checksum]],
    ['that is nothing but its header', () => [8, native().crc32c(guest.port.deviceState.subarray(0, 8), 0)]],
    ['longer than its room', ({ checksum }) => [guest.port.deviceState.length + 1, checksum]],
    ['of 2^53 bytes', ({ checksum }) => [2 ** 53, checksum]],
  ])('device state %s is not loaded', (_what, spoil) => {
    guest.port.pause();
    refused(
      messageType.load,
      spoil(guest.port.save()),
      /^Device state of \d+ bytes (cannot be|does not match its checksum)/,
    );
  });

  it('device state of another format is not loaded, whatever its checksum', () => {
    guest.port.pause();
    const { bytes } = guest.port.save();
    guest.port.deviceState[0] = 0;
    const checksum = native().crc32c(guest.port.deviceState.subarray(0, bytes), 0);
    refused(messageType.load, [bytes, checksum], /is of another format/);
  });

  it.each([0, messageType.hello, 16, 0xffff_ffff])('a message of type %i is unknown', (type) => {
    refused(type, [], new RegExp(`^Message type ${type} is unknown$`));
  });

  it.each([1, 16, messageBytes - 1, messageBytes + 1, 4096])(
    'a message of %i bytes is none of ours',
    (bytes) => {
      const message = new Uint8Array(bytes);
      message.set(portMessage(messageType.quit).subarray(0, bytes));
      const answer = exchange(guest.port.socketFd, message);
      expect(answer).toMatchObject({
        status: status.refused,
        text: `A message of ${bytes} bytes is not one of ours`,
      });
      expectLife(guest);
    },
  );

  it('a message with another magic is none of ours', () => {
    const message = portMessage(messageType.quit);
    message[messageOffset.magic] = 0x46;
    expect(exchange(guest.port.socketFd, message)).toMatchObject({ status: status.refused });
    expectLife(guest);
  });

  it('an answer names the request it is for, also when several wait', () => {
    const until = guest.virtualNs + 1e6;
    const run = portMessage(messageType.run, until, guest.port.deliver.head, 4711, runRelease);
    const types = [messageType.collect, 99, messageType.save];
    for (const type of types) native().portSend(guest.port.socketFd, portMessage(type));
    native().portSend(guest.port.socketFd, run);
    expect(types.map(() => nextAnswer(guest.port.socketFd).type)).toEqual(types);
    const stopped = nextAnswer(guest.port.socketFd);
    expect(stopped).toMatchObject({ type: messageType.run, sequence, status: status.ok });
    expect([stopped.arguments[0], stopped.arguments[5]]).toEqual([until, 4711]);
    guest.stateLoaded(until);
  });

  it('translations are dropped for exactly the pages set in the apply bitmap', () => {
    const view = new DataView(guest.area);
    const at = Number(view.getBigUint64(areaOffset.applyOffset, true));
    writeUint64(view, at, 2 ** 32 + 5);
    const answer = exchange(guest.port.socketFd, portMessage(messageType.invalidate));
    expect(answer).toMatchObject({ status: status.ok });
    expect(answer.arguments[0]).toBe(3);
    writeUint64(view, at, 0);
    expectLife(guest);
  });
});

describeInLab('device state that fails to load', (lab) => {
  it.each<[string, (state: Uint8Array) => Uint8Array]>([
    [
      'cut short, with a checksum that is right all the same',
      (state) => state.subarray(0, state.length - 100),
    ],
    ['with a section that nobody knows', (state) => state.fill(0x7e, 8, 9)],
  ])('%s leaves a guest that stands, says UNUSABLE and still answers', (what, spoil) => {
    const guest = lab.startFirmware(`lost${what.length}`, haltingFirmware());
    guest.runFor(1e6);
    guest.port.pause();
    const { bytes } = guest.port.save();
    const state = spoil(guest.port.deviceState.subarray(0, bytes));
    const load = portMessage(messageType.load, state.length, native().crc32c(state, 0));
    const { socketFd } = guest.port;
    expect(exchange(socketFd, load)).toMatchObject({
      status: status.unusable,
      text: expect.stringMatching(
        /^Device state failed to load with error -\d+: the guest is unusable$/,
      ) as string,
    });
    const run = portMessage(messageType.run, 2e6, guest.port.deliver.head);
    expect(exchange(socketFd, run)).toMatchObject({ status: status.unusable });
    expect(guest.port.collect()).toBeGreaterThanOrEqual(0);
    guest.hangUp();
    guest.claimAgain();
    expect(exchange(guest.port.socketFd, run)).toMatchObject({ status: status.unusable });
  });
});
